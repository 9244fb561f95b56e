//! The configuration: one TOML file, `${VAR}` in its strings, `EMBEDGATE_*` overrides, all problems at once.
//!
//! This is the only crate that reads the process's environment. Each table has a file of its own in `config/`; values
//! with units are types of `config/units.rs`. Files of the models are not opened here.

mod auth;
mod cache;
mod device;
mod doubts;
mod expand;
mod hub;
mod model;
mod parse;
mod plugin;
mod replicas;
mod server;
mod source;
mod units;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use embedgate_request::Hook;
use serde::{Deserialize, Serialize};

use self::auth::Authenticators;
pub use self::{
    auth::{AuthConfig, AuthMode, KeyConfig, KeySecret, Timestamp},
    cache::{CacheConfig, CacheFileConfig, CachePolicy, ValuePrecision},
    device::{Device, DeviceChoice},
    hub::{HubAddress, HubConfig},
    model::{
        BackendConfig, BackendType, DimensionsPolicy, LoadTime, ModelConfig, PrecisionChoice,
        RerankWeights,
    },
    plugin::{
        CryptoConfig, GrantsConfig, HttpConfig, InstanceConfig, IssuerConfig, KvConfig,
        MOST_INSTANCES, NativeIds, OnError, PluginConfig, allowed_url,
    },
    replicas::ReplicaCount,
    server::{
        CudaConfig, LogConfig, LogFormat, LogLevel, OneDnnConfig, OnnxRuntimeConfig, ServerConfig,
    },
    source::{Hub, Source},
    units::{ByteSize, Period, Secret, resolve},
};

/// Files that are tried when none is named.
const DEFAULT_FILES: [&str; 2] = ["embedgate.toml", "/etc/embedgate/embedgate.toml"];

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Config {
    /// The model that answers requests without a model name; none means the only one there is.
    pub default_model: Option<String>,
    /// The answer to a request for a model that does not exist.
    pub unknown_model: UnknownModel,
    /// The HTTP server.
    pub server: ServerConfig,
    /// The level and the format of the log.
    pub log: LogConfig,
    /// The configuration of authentication: the callers that may use the server.
    pub auth: AuthConfig,
    /// The cache of vectors.
    pub cache: CacheConfig,
    /// ONNX Runtime's library.
    pub onnxruntime: OnnxRuntimeConfig,
    /// oneDNN's library.
    pub onednn: OneDnnConfig,
    /// NVIDIA's driver.
    pub cuda: CudaConfig,
    /// The configuration of the hubs that models are fetched from.
    pub hub: HubConfig,
    /// The models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// The plugins by name.
    pub plugins: BTreeMap<String, PluginConfig>,
}

/// The answer to a request for a model that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownModel {
    /// An error that lists the models.
    #[default]
    Refuse,
    /// The default model, as servers of one model do: for clients that send a name of their own.
    Default,
}

/// The purpose for which a configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// A command that serves nobody.
    Command,
    /// A command that makes what the configuration names: models' folders need not be there.
    Fetch,
}

/// The process's environment, read once: its variables, and where its program lies.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    program: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment; variables that are not UTF-8 are left out.
    #[must_use]
    pub fn current() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the environment"
        )]
        let (variables, program) = (std::env::vars_os(), std::env::current_exe());
        let utf8 = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        Self {
            variables: variables.filter_map(utf8).collect(),
            program: program.ok(),
        }
    }

    /// The file of the running program.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// The folder of the running program.
    #[must_use]
    pub fn program_folder(&self) -> Option<&Path> {
        self.program.as_deref().and_then(Path::parent)
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The folder of this user for what can be made again.
    #[must_use]
    pub fn state_folder(&self) -> Option<PathBuf> {
        let below =
            |variable: &str, below: &str| Some(PathBuf::from(self.get(variable)?).join(below));
        // systemd may name several folders.
        let systemd = self
            .get("CACHE_DIRECTORY")
            .and_then(|all| all.split(':').next());
        systemd
            .map(PathBuf::from)
            .or_else(|| below("XDG_CACHE_HOME", "embedgate"))
            .or_else(|| below("HOME", ".cache/embedgate"))
    }

    /// Puts variables in the place of `${VAR}`.
    ///
    /// # Errors
    /// When one is not set.
    pub fn expand(&self, text: &str) -> Result<String, ConfigError> {
        let mut table = toml::Table::from_iter([("text".to_owned(), toml::Value::from(text))]);
        let mut problems = Vec::new();
        expand::variables(&mut table, self, &mut problems);
        match table.remove("text") {
            Some(toml::Value::String(text)) if problems.is_empty() => Ok(text),
            _ => Err(ConfigError {
                file: None,
                problems,
            }),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self {
            variables,
            program: None,
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key that has the problem, such as `models.bge-m3.backend.threads`; empty for the file as a whole.
    pub key: String,
    /// The problem, and the text to write instead.
    pub message: String,
}

impl Problem {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, message } = self;
        match key.as_str() {
            "" => f.write_str(message),
            key => write!(f, "{key}: {message}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        let problems = if n == 1 { "problem" } else { "problems" };
        match &self.file {
            Some(file) => write!(f, "{n} {problems} in {}:", file.display())?,
            None => write!(f, "{n} {problems} in the configuration:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

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

    /// Loads the configuration as [`Config::load`] does, for a command that fetches models: it reads the file and
    /// checks only the `hub` settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_a_fetch(
        named: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::load_for(named, environment, Purpose::Fetch)
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
        let mut config = parse::config(table, &mut problems);
        for (name, plugin) in &mut config.plugins {
            let settings = |all: &toml::Value| all.get(name)?.get("settings")?.as_table().cloned();
            plugin.written_settings = written.as_ref().and_then(settings);
        }
        config.resolve_paths(base);
        if purpose == Purpose::Fetch {
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

    /// The model's name and config that answer requests without a model name.
    #[must_use]
    pub fn default_model(&self) -> Option<&str> {
        match (&self.default_model, self.models.len()) {
            (Some(name), _) => Some(name),
            (None, 1) => self.models.keys().next().map(String::as_str),
            _ => None,
        }
    }

    /// Returns a copy of this configuration with the settings of `other` that can be changed while the gateway serves.
    #[must_use]
    pub fn with_live_settings_of(&self, other: &Self) -> Self {
        Self {
            default_model: other.default_model.clone(),
            unknown_model: other.unknown_model,
            server: ServerConfig {
                reload_on_change: other.server.reload_on_change,
                max_model_memory: other.server.max_model_memory,
                ..self.server.clone()
            },
            auth: other.auth.clone(),
            cache: self.cache.with_sizes_of(&other.cache),
            models: other.models.clone(),
            plugins: other.plugins.clone(),
            ..self.clone()
        }
    }

    /// The keys whose values are others here, such as `server.listen`; nothing of secrets, models and plugins.
    #[must_use]
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let all = |config: &Self| {
            let config = Self {
                auth: AuthConfig::default(),
                models: BTreeMap::new(),
                plugins: BTreeMap::new(),
                ..config.clone()
            };
            toml::Table::try_from(config).unwrap_or_default()
        };
        let mut found = Vec::new();
        differing(
            &toml::Value::Table(all(self)),
            &toml::Value::Table(all(other)),
            "",
            &mut found,
        );
        // Tokens are shown as stars, whatever they are.
        if self.hub != other.hub && !found.iter().any(|key| key.starts_with("hub.")) {
            found.push("hub".into());
        }
        found.sort();
        found.dedup();
        found
    }

    /// The resolved configuration as TOML, secrets masked.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        for plugin in shown.plugins.values_mut() {
            if let Some(written) = &plugin.written_settings {
                plugin.settings.clone_from(written);
            }
        }
        toml::to_string_pretty(&shown).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
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
        for plugin in self.plugins.values_mut() {
            plugin.paths_mut().for_each(resolve);
        }
    }

    /// Checks all tables, including the conditions that concern more than one table.
    fn check(&self, problems: &mut Vec<Problem>) {
        self.server.check(problems);
        for (name, plugin) in &self.plugins {
            plugin.check(name, problems);
        }
        self.auth.check(self.authenticators(), problems);
        self.cache.check(problems);
        self.hub.check(problems);
        if self.models.is_empty() && problems.is_empty() {
            let hint =
                "no model is configured: add [models.NAME] with path = \"folder of the model\"";
            problems.push(Problem::new("models", hint));
        }
        for (name, model) in &self.models {
            model.check(name, &self.server, problems);
        }
        self.check_names(problems);
    }

    fn authenticators(&self) -> Authenticators {
        let said = |plugin: &PluginConfig| match &plugin.hooks {
            None => Authenticators::Perhaps,
            Some(hooks) if hooks.contains(&Hook::Authenticate) => Authenticators::Some,
            Some(_) => Authenticators::None,
        };
        let all = self.plugins.values().map(said);
        all.max().unwrap_or(Authenticators::None)
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        let mut owners: BTreeMap<&str, &str> = self
            .models
            .keys()
            .map(|name| (name.as_str(), name.as_str()))
            .collect();
        for (name, model) in &self.models {
            for alias in &model.aliases {
                if let Some(owner) = owners.insert(alias, name) {
                    let message = format!(
                        "alias \"{alias}\" is a name of model \"{owner}\" already: choose another"
                    );
                    problems.push(Problem::new(format!("models.{name}.aliases"), message));
                }
            }
        }
        if let Some(default) = self
            .default_model
            .as_deref()
            .filter(|name| !owners.contains_key(name))
        {
            let names: Vec<_> = self.models.keys().cloned().collect();
            let message = format!(
                "there is no model \"{default}\", choose one of: {}",
                names.join(", ")
            );
            problems.push(Problem::new("default_model", message));
        }
        if self.unknown_model == UnknownModel::Default && self.default_model().is_none() {
            let message =
                "is \"default\", and there are several models: say which one by default_model";
            problems.push(Problem::new("unknown_model", message));
        }
    }
}

/// Adds the keys below `at` whose values are others, or are in one of the two alone.
fn differing(one: &toml::Value, other: &toml::Value, at: &str, found: &mut Vec<String>) {
    let (toml::Value::Table(left), toml::Value::Table(right)) = (one, other) else {
        if one != other {
            found.push(at.to_owned());
        }
        return;
    };
    for key in left.keys().chain(right.keys()) {
        let below = match at {
            "" => key.clone(),
            at => format!("{at}.{key}"),
        };
        match (left.get(key), right.get(key)) {
            (Some(one), Some(other)) => differing(one, other, &below, found),
            _ => found.push(below),
        }
    }
}
