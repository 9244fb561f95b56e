//! The source of the configuration: a file, the command line, and the environment.

use std::{net::SocketAddr, path::PathBuf};

use embedgate_config::{Config, ConfigError, Environment};

/// The source of the configuration, for reading it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// The file that was named.
    pub file: Option<PathBuf>,
    /// The configuration that replaces a file: the command line's own model.
    pub made: Option<Config>,
    /// The address from the command line that replaces `server.listen`.
    pub listen: Option<SocketAddr>,
    /// The process's environment.
    pub environment: Environment,
}

impl Source {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every problem with it.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.made {
            Some(made) => made.clone(),
            None => Config::load(self.file.as_deref(), &self.environment)?,
        };
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        Ok(config)
    }

    /// Returns the path that tells this configuration from those of other gateways on this machine.
    #[must_use]
    pub(crate) fn identity(&self) -> PathBuf {
        let path = |made: &Config| made.models.values().next().map(|model| model.path.clone());
        match &self.made {
            Some(made) => path(made).unwrap_or_default(),
            None => self.path(),
        }
    }

    /// The configuration's own file; empty where there is none.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        match &self.made {
            Some(_) => PathBuf::new(),
            None => Config::find(self.file.as_deref(), &self.environment).unwrap_or_default(),
        }
    }
}
