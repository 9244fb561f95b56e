//! `[plugins.NAME]`.

mod check;
pub(super) mod grants;
pub(super) mod instance;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use embedgate_request::{Hook, NamePattern, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{grants::GrantsConfig, instance::InstanceConfig};
use super::{ByteSize, ConfigError, Environment, Period, expand, parse};

/// Instances that all plugins together can have.
pub const MOST_INSTANCES: usize = 256;

/// A WebAssembly component, where it is asked, and what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct PluginConfig {
    /// The component's file.
    pub path: PathBuf,
    /// The SHA-256 that the file must have, in hex. `embedgate plugin pin` writes it. Without it: any file is taken.
    pub sha256: Option<String>,
    /// The hooks of it that are called: `"authenticate"`, `"preprocess"`, `"observe"`. Without it: all that it exports.
    pub hooks: Option<Vec<Hook>>,
    /// Plugins of a hook are asked in this order, lowest first, then by name.
    pub order: i32,
    /// Its preprocessor sees requests for these models (a name, an alias, or the beginning of names and a *); `[]` for
    /// all.
    pub models: Vec<NamePattern>,
    /// Its authenticator is asked on these routes, as in `auth.open_routes`; `[]` for all.
    pub routes: Vec<Route>,
    /// The request headers that its authenticator sees, in lower case.
    pub headers: Vec<String>,
    /// A call ends after this time, waiting included.
    pub timeout: Period,
    /// The size that the memory of an instance may grow to, 1MiB to 256MiB.
    pub max_memory: ByteSize,
    /// Instances that may be at work at once, 1 to 256; a call beyond waits within its timeout.
    pub max_instances: usize,
    /// `"fresh"`: every call gets an instance of its own, and nothing outlives it. `{ reuse = 1000 }`: an instance is
    /// used for so many calls, one after another; for JavaScript and Python, which take long to start.
    pub instance: InstanceConfig,
    /// The treatment of token ids of a model's own vocabulary, which its preprocessor cannot read as text: `"refuse"`
    /// (400) or `"show"` (the plugin sees the ids). Ids of OpenAI's vocabularies are shown as their text.
    pub native_ids: NativeIds,
    /// The treatment of a request whose preprocessor fails: `"deny"` (503) or `"skip"`. A failing authenticator always
    /// denies.
    pub on_error: OnError,
    /// The parts of the host that the plugin may use.
    pub grants: GrantsConfig,
    /// Handed to `lifecycle.init` as JSON.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
    /// The settings as the file has them, variables by their names: values of variables are not shown.
    #[serde(skip)]
    pub written_settings: Option<toml::Table>,
    /// Text files that are added to the settings, under these names.
    pub settings_files: BTreeMap<String, PathBuf>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            sha256: None,
            hooks: None,
            order: 0,
            models: Vec::new(),
            routes: Vec::new(),
            headers: vec!["authorization".into()],
            timeout: Period::milliseconds(100),
            max_memory: ByteSize::mib(32),
            max_instances: 64,
            instance: InstanceConfig::Fresh,
            native_ids: NativeIds::Refuse,
            on_error: OnError::Deny,
            grants: GrantsConfig::default(),
            settings: toml::Table::new(),
            written_settings: None,
            settings_files: BTreeMap::new(),
        }
    }
}

impl PluginConfig {
    /// Reads a plugin's table on its own, for a component outside a configuration. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// Every problem.
    pub fn parse(
        table: &toml::Table,
        file: &Path,
        base: &Path,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut table = table.clone();
        let mut problems = Vec::new();
        expand::variables(&mut table, environment, &mut problems);
        let mut config: Self = parse::read("plugin", toml::Value::Table(table), &mut problems);
        for path in config
            .paths_mut()
            .filter(|path| !path.as_os_str().is_empty())
        {
            *path = base.join(&*path);
        }
        file.clone_into(&mut config.path);
        config.check("under-test", &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError {
            file: None,
            problems,
        })
    }

    /// The files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let crypto = self.grants.crypto.iter();
        let jwks = crypto.flat_map(|crypto| crypto.issuers.values().map(|issuer| &issuer.jwks));
        std::iter::once(&self.path)
            .chain(self.settings_files.values())
            .chain(jwks)
            .map(PathBuf::as_path)
    }

    /// The paths of those files, to resolve them.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let crypto = self.grants.crypto.iter_mut();
        let jwks =
            crypto.flat_map(|crypto| crypto.issuers.values_mut().map(|issuer| &mut issuer.jwks));
        std::iter::once(&mut self.path)
            .chain(self.settings_files.values_mut())
            .chain(jwks)
    }
}

/// The treatment of token ids of a model's own vocabulary where a plugin preprocesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NativeIds {
    /// The request gets 400: a plugin that filters texts would not see them.
    Refuse,
    /// The plugin is shown the ids.
    Show,
}

/// The treatment of a request whose preprocessor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It gets 503.
    Deny,
    /// It goes on as it came.
    Skip,
}
