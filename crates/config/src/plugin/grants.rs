//! `[plugins.NAME.grants]`: the parts of the host that a plugin may use.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::{ByteSize, Period, Secret};

/// The parts of the host that a plugin may use, in addition to its log, the clock and randomness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CryptoConfig {
    /// Issuers of JSON Web Tokens by the name that the plugin says.
    pub issuers: BTreeMap<String, IssuerConfig>,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Its public keys, a JSON Web Key Set.
    pub jwks: PathBuf,
    /// The value that iss must have. Without it: any.
    pub issuer: Option<String>,
    /// One of these must be in aud; `[]` for anything.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub audience: Vec<String>,
    /// Accepted algorithms.
    #[serde(default = "IssuerConfig::usual_algorithms")]
    #[schemars(with = "Vec<String>")]
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// The time by which clocks may be apart.
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

/// The other servers that a plugin may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// A request must have the origin of one of these URLs, and its path or one below it.
    pub allow: Vec<String>,
    /// True where addresses of this machine and of private networks are allowed.
    pub allow_private: bool,
    /// Requests in one call.
    pub max_requests: u32,
    /// Largest body of an answer.
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
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}
