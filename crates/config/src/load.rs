//! Loads a configuration: finds the file, replaces variables, parses, resolves paths, and checks.

use std::path::{Path, PathBuf};

use super::{
    AuthConfig, AuthMode, Config, ConfigError, Environment, Problem, expand, parse, telemetry,
};

/// Files that are tried when none is named.
const DEFAULT_FILES: [&str; 2] = ["embedgate.toml", "/etc/embedgate/embedgate.toml"];

/// The purpose for which a configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// A command that serves nobody.
    Command,
    /// A command that reads no models: their folders need not be there, and their tables need not be right.
    WithoutModels,
}

impl Config {
    /// Finds the file (`named`, else `EMBEDGATE_CONFIG`, else `embedgate.toml` here or in `/etc/embedgate`) and loads it.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load(named: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        Self::load_for(named, environment, Purpose::Serve)
    }

    /// Loads the configuration as [`Config::load`] does, for a command that serves no callers and therefore needs no
    /// `auth` settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_a_command(
        named: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::load_for(named, environment, Purpose::Command)
    }

    /// Loads the configuration as [`Config::load`] does, for a command that reads no models, such as one that fetches them: of
    /// what it reads it checks the `hub` settings alone.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_models(
        named: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::load_for(named, environment, Purpose::WithoutModels)
    }

    fn load_for(
        named: Option<&Path>,
        environment: &Environment,
        purpose: Purpose,
    ) -> Result<Self, ConfigError> {
        let file = Self::find(named, environment)?;
        let text = std::fs::read_to_string(&file).map_err(|e| ConfigError {
            file: None,
            problems: vec![Problem::new(
                "",
                format!("{} cannot be read: {e}", file.display()),
            )],
        })?;
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse_for(&text, &base, environment, purpose).map_err(|problems| ConfigError {
            file: Some(file),
            problems,
        })
    }

    /// Finds the file: `named`, else `EMBEDGATE_CONFIG`, else `embedgate.toml` here or in `/etc/embedgate`.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(named: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
        if let Some(file) = named {
            return Ok(file.to_owned());
        }
        if let Some(file) = environment.get("EMBEDGATE_CONFIG") {
            return Ok(file.into());
        }
        DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists()).ok_or_else(|| ConfigError {
            file: None,
            problems: vec![Problem::new(
                "",
                format!(
                    "no configuration: name one with --config FILE or EMBEDGATE_CONFIG, or write {}",
                    DEFAULT_FILES.join(" or ")
                ),
            )],
        })
    }

    /// Parses the text of a file that lies in the folder `base`.
    ///
    /// # Errors
    /// Every problem.
    pub fn parse(text: &str, base: &Path, environment: &Environment) -> Result<Self, Vec<Problem>> {
        Self::parse_for(text, base, environment, Purpose::Serve)
    }

    fn parse_for(
        text: &str,
        base: &Path,
        environment: &Environment,
        purpose: Purpose,
    ) -> Result<Self, Vec<Problem>> {
        let mut table = parse::table(text).map_err(|problem| vec![problem])?;
        let mut problems = Vec::new();
        let written = table.get("plugins").cloned();
        expand::variables(&mut table, environment, &mut problems);
        expand::overrides(&mut table, environment, &mut problems);
        telemetry::variables(&mut table, environment, &mut problems);
        let mut config = parse::config(table, &mut problems);
        for (name, plugin) in &mut config.plugins {
            let settings = |all: &toml::Value| all.get(name)?.get("settings")?.as_table().cloned();
            plugin.written_settings = written.as_ref().and_then(settings);
        }
        config.resolve_paths(base);
        if purpose == Purpose::WithoutModels {
            config.hub.check(&mut problems);
            return if problems.is_empty() {
                Ok(config)
            } else {
                Err(problems)
            };
        }
        if purpose == Purpose::Command && config.auth == AuthConfig::default() {
            config.auth.mode = Some(AuthMode::None);
        }
        config.check(&mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }

    /// Relative paths are relative to the file; one that is missing stays so.
    fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| {
            if !path.as_os_str().is_empty() {
                *path = base.join(&*path);
            }
        };
        for model in self.models.values_mut() {
            resolve(&mut model.path);
            model.backend.file.as_mut().map(resolve);
        }
        self.onnxruntime.library.as_mut().map(resolve);
        self.onnxruntime.webgpu.as_mut().map(resolve);
        self.onnxruntime.cuda.as_mut().map(resolve);
        self.onednn.library.as_mut().map(resolve);
        self.cuda.library.as_mut().map(resolve);
        self.cache.file.path.as_mut().map(resolve);
        self.server.state_dir.as_mut().map(resolve);
        self.server.unix_socket.as_mut().map(resolve);
        if let Some(tls) = &mut self.server.tls {
            resolve(&mut tls.certificate);
            resolve(&mut tls.key);
            tls.client_ca.as_mut().map(resolve);
        }
        for plugin in self.plugins.values_mut() {
            plugin.paths_mut().for_each(resolve);
        }
    }
}
