//! `[plugins.NAME]`.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use embedgate_request::{Hook, NamePattern, Route};
use serde::{Deserialize, Deserializer, Serialize, de};
use url::Url;

use super::{
    ByteSize, ConfigError, Environment, Period, Problem, Secret, expand, parse, units::is_sha256,
};

/// The largest allowed size of a plugin's linear memories: the room that every instance's place in the pool has.
const MOST_MEMORY: ByteSize = ByteSize::mib(256);
/// Instances that all plugins together can have.
pub const MOST_INSTANCES: usize = 256;

/// A WebAssembly component, where it is asked, and what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// The component.
    pub path: PathBuf,
    /// The SHA-256 that the file must have, in hex; `embedgate plugin pin` writes it. None: any file is taken.
    pub sha256: Option<String>,
    /// Which of its hooks are called. None: all that it exports.
    pub hooks: Option<Vec<Hook>>,
    /// Plugins of a hook are asked in this order, lowest first, then by name.
    pub order: i32,
    /// Its preprocessor sees requests for these models; empty: for all.
    pub models: Vec<NamePattern>,
    /// Its authenticator is asked on these routes; empty: on all.
    pub routes: Vec<Route>,
    /// The request headers that its authenticator sees.
    pub headers: Vec<String>,
    /// A call ends after this time, waiting included.
    pub timeout: Period,
    /// The size that its memory may grow to.
    pub max_memory: ByteSize,
    /// The number of its instances that may run at once; a further call waits within its timeout.
    pub max_instances: usize,
    /// The lifetime of an instance: one call, or a number of calls one after another.
    pub instance: InstanceConfig,
    /// The treatment of token ids of a model's own vocabulary, which its preprocessor cannot read as text.
    pub native_ids: NativeIds,
    /// The treatment of a request whose preprocessor fails. A failing authenticator always denies.
    pub on_error: OnError,
    /// The parts of the host that the plugin may use.
    pub grants: GrantsConfig,
    /// Handed to `lifecycle.init` as JSON.
    pub settings: toml::Table,
    /// The settings as the file has them, variables by their names: values of variables are not shown.
    #[serde(skip)]
    pub written_settings: Option<toml::Table>,
    /// Files whose text is added to the settings under these names.
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

/// The treatment of token ids of a model's own vocabulary where a plugin preprocesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NativeIds {
    /// The request gets 400: a plugin that filters texts would not see them.
    Refuse,
    /// The plugin is shown the ids.
    Show,
}

/// The treatment of a request whose preprocessor fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It gets 503.
    Deny,
    /// It goes on as it came.
    Skip,
}

/// The lifetime of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceConfig {
    /// One call: nothing of it outlives the call.
    Fresh,
    /// So many calls, one after another: for engines that take long to start.
    Reuse(NonZeroU32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reuse {
    reuse: NonZeroU32,
}

impl Serialize for InstanceConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fresh => serializer.serialize_str("fresh"),
            Self::Reuse(reuse) => Reuse { reuse: *reuse }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for InstanceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FreshOrReuse;
        impl<'de> de::Visitor<'de> for FreshOrReuse {
            type Value = InstanceConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"fresh\" or a table { reuse = 1000 }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<InstanceConfig, E> {
                match text {
                    "fresh" => Ok(InstanceConfig::Fresh),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<InstanceConfig, A::Error> {
                let Reuse { reuse } =
                    Reuse::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(InstanceConfig::Reuse(reuse))
            }
        }
        deserializer.deserialize_any(FreshOrReuse)
    }
}

/// The parts of the host that a plugin may use, in addition to its log, the clock and randomness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantsConfig {
    /// Values that it can ask for by name.
    pub secrets: BTreeMap<String, Secret>,
    /// A store of its own in memory.
    pub kv: Option<KvConfig>,
    /// Names of metrics that it may count.
    pub metrics: Vec<String>,
    /// Hashes, and JSON Web Tokens.
    pub crypto: Option<CryptoConfig>,
    /// Requests to other servers.
    pub http: Option<HttpConfig>,
}

/// Bounds of a plugin's store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvConfig {
    /// Keys and values together, 64 bytes more an entry.
    pub max_size: ByteSize,
    /// Entries.
    pub max_keys: usize,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(8),
            max_keys: 10_000,
        }
    }
}

/// The issuers whose tokens the host verifies for a plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CryptoConfig {
    /// Issuers of JSON Web Tokens by the name that the plugin says.
    pub issuers: BTreeMap<String, IssuerConfig>,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// A file with its public keys, a JSON Web Key Set.
    pub jwks: PathBuf,
    /// The required value of `iss`. None: any value.
    pub issuer: Option<String>,
    /// One of these must be in `aud`; empty: nothing need be. One alone may be written without a list.
    #[serde(default, deserialize_with = "one_or_many")]
    pub audience: Vec<String>,
    /// Accepted algorithms.
    #[serde(default = "IssuerConfig::usual_algorithms")]
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// The allowed difference between clocks.
    #[serde(default = "IssuerConfig::usual_leeway")]
    pub leeway: Period,
}

impl IssuerConfig {
    fn usual_algorithms() -> Vec<jsonwebtoken::Algorithm> {
        use jsonwebtoken::Algorithm::{ES256, EdDSA, PS256, RS256};
        vec![RS256, PS256, ES256, EdDSA]
    }

    fn usual_leeway() -> Period {
        Period::seconds(60)
    }
}

/// Which other servers a plugin may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// URLs; a request must have the origin of one, and a path that is its path or below it.
    pub allow: Vec<String>,
    /// True when addresses of this machine and of private networks are allowed.
    pub allow_private: bool,
    /// Requests in one call.
    pub max_requests: u32,
    /// Body of an answer.
    pub max_response: ByteSize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_private: false,
            max_requests: 2,
            max_response: ByteSize::mib(1),
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

    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let crypto = self.grants.crypto.iter_mut();
        let jwks =
            crypto.flat_map(|crypto| crypto.issuers.values_mut().map(|issuer| &mut issuer.jwks));
        std::iter::once(&mut self.path)
            .chain(self.settings_files.values_mut())
            .chain(jwks)
    }

    pub(super) fn check(&self, name: &str, problems: &mut Vec<Problem>) {
        let at = format!("plugins.{name}");
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::new(format!("{at}.{key}"), message));
        };
        if !is_name(name) {
            problem(
                "",
                "the name of a plugin is 1 to 64 of a-z, 0-9, - and _: it is a label of metrics"
                    .into(),
            );
        }
        if self.path.as_os_str().is_empty() {
            problem("path", "is missing: the component's .wasm file".into());
        }
        if self.sha256.as_ref().is_some_and(|hash| !is_sha256(hash)) {
            let message = "must be 64 hex digits: `embedgate plugin pin` writes it";
            problem("sha256", message.into());
        }
        if self.hooks.as_ref().is_some_and(Vec::is_empty) {
            let message =
                "is empty, so the plugin is never asked: name hooks, or leave it out for all";
            problem("hooks", message.into());
        }
        if !(1..=MOST_INSTANCES).contains(&self.max_instances) {
            let message = format!("must be 1 to {MOST_INSTANCES}, got {}", self.max_instances);
            problem("max_instances", message);
        }
        if self.max_memory < ByteSize::mib(1) || self.max_memory > MOST_MEMORY {
            let message = format!("{} is out of range: 1MiB to {MOST_MEMORY}", self.max_memory);
            problem("max_memory", message);
        }
        for (i, header) in self.headers.iter().enumerate() {
            let is_header = header
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
            if header.is_empty() || !is_header {
                let message =
                    format!("\"{header}\" is no header name in lower case, such as \"x-api-key\"");
                problem(&format!("headers[{i}]"), message);
            }
        }
        for name in &self.grants.metrics {
            if !is_name(name) {
                let message =
                    format!("\"{name}\" is no name of a metric: 1 to 64 of a-z, 0-9, - and _");
                problem("grants.metrics", message);
            }
        }
        for name in self.settings_files.keys() {
            if self.settings.contains_key(name) {
                let message = "is a name in settings too: take one of them away";
                problem(&format!("settings_files.{name}"), message.into());
            }
        }
        if let Some(http) = &self.grants.http {
            for (i, url) in http.allow.iter().enumerate() {
                if let Err(message) = allowed_url(url) {
                    problem(&format!("grants.http.allow[{i}]"), message);
                }
            }
            if http.allow.is_empty() {
                let message = "is empty: name the URLs that the plugin may ask";
                problem("grants.http.allow", message.into());
            }
        }
        self.timeout.check(&format!("{at}.timeout"), problems);
    }
}

/// Reads a URL of `grants.http.allow`.
///
/// # Errors
/// A message that states the problem and the correct form.
pub fn allowed_url(text: &str) -> Result<Url, String> {
    let expected = "write it as \"https://idp.example.com/introspect\"";
    let url =
        Url::parse(text).map_err(|error| format!("\"{text}\" is no URL ({error}): {expected}"))?;
    let is_web = matches!(url.scheme(), "https" | "http") && url.has_host();
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if is_web && is_plain {
        Ok(url)
    } else {
        Err(format!(
            "\"{text}\" must be http or https, without user, query and fragment: {expected}"
        ))
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::Many(many) => many,
    })
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}
