//! `[auth]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::SystemTime,
};

use embedgate_request::{KeyHash, Lane, LimitConfig, NamePattern, Route};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Problem, Secret};

/// The configuration of authentication: the callers that may use the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// `"keys"`: requests need one of `keys`, and no plugin is asked; `"none"`: anybody may. None means by what there is:
    /// keys, then plugins that authenticate.
    pub mode: Option<AuthMode>,
    /// Keys that clients send as `Authorization: Bearer KEY`. Take them from the environment, `"${EMBEDGATE_KEY}"`, or
    /// keep their hash alone, which `embedgate key new` prints.
    pub keys: Vec<KeyConfig>,
    /// Routes that anybody may use, for clients that send no key.
    pub open_routes: Vec<Route>,
    /// The limits on a principal's use, by the name that keys and plugins state.
    pub limits: BTreeMap<String, LimitConfig>,
}

/// The method that tells callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a key.
    Keys,
    /// Not at all.
    None,
}

/// A key and what goes with it: written as the key alone, or as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyConfig {
    /// The key that the client sends, or the hash that the key is known by.
    #[serde(flatten)]
    pub secret: KeySecret,
    /// The name of the principal; keys of one name are one principal. None means a name made from the key.
    pub name: Option<String>,
    /// The lane of requests with this key that name none themselves. None means by their size.
    pub lane: Option<Lane>,
    /// The models that it opens; none: all.
    pub models: Option<Vec<NamePattern>>,
    /// One of `limits`.
    pub limit: Option<String>,
    /// From then on the key is refused.
    pub expires: Option<Timestamp>,
    /// True when the key opens `/admin/reload`.
    pub admin: bool,
}

/// A key, or its hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySecret {
    /// The key itself.
    Key(Secret),
    /// The hash of a key of `embedgate key new`.
    Hash(KeyHash),
}

/// A moment, written as a date or as `2027-01-31T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_seconds(self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Date(toml::value::Datetime),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Date(date) => date.to_string(),
            Written::Text(text) => text,
        };
        let whole = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.clone(),
        };
        humantime::parse_rfc3339(&whole).map(Self).map_err(|_| {
            de::Error::custom(format!(
                "\"{text}\" is no time, write 2027-01-31 or 2027-01-31T12:00:00Z"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for KeyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            key: Option<Secret>,
            hash: Option<KeyHash>,
            name: Option<String>,
            lane: Option<Lane>,
            models: Option<Vec<NamePattern>>,
            limit: Option<String>,
            expires: Option<Timestamp>,
            #[serde(default)]
            admin: bool,
        }
        struct KeyOrTable;
        impl<'de> de::Visitor<'de> for KeyOrTable {
            type Value = KeyConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or a table such as { key = \"...\", name = \"ragflow\" }")
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<KeyConfig, E> {
                Ok(KeyConfig::plain(key))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<KeyConfig, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let secret = match (table.key, table.hash) {
                    (Some(key), None) => KeySecret::Key(key),
                    (None, Some(hash)) => KeySecret::Hash(hash),
                    (None, None) => return Err(de::Error::missing_field("key")),
                    (Some(_), Some(_)) => {
                        return Err(de::Error::custom("key and hash are both there: remove one"));
                    }
                };
                Ok(KeyConfig {
                    secret,
                    name: table.name,
                    lane: table.lane,
                    models: table.models,
                    limit: table.limit,
                    expires: table.expires,
                    admin: table.admin,
                })
            }
        }
        deserializer.deserialize_any(KeyOrTable)
    }
}

impl KeyConfig {
    /// A key with nothing said about it.
    #[must_use]
    pub fn plain(key: &str) -> Self {
        Self {
            secret: KeySecret::Key(Secret::new(key)),
            name: None,
            lane: None,
            models: None,
            limit: None,
            expires: None,
            admin: false,
        }
    }
}

/// The presence of plugins that authenticate, as far as the configuration states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Authenticators {
    None,
    /// Only the components know.
    Perhaps,
    Some,
}

impl AuthConfig {
    /// Returns true when every caller is refused: authentication is on, and there is no key and no plugin that
    /// authenticates.
    #[must_use]
    pub fn lets_nobody_in(&self, has_authenticators: bool) -> bool {
        self.mode != Some(AuthMode::None) && self.keys.is_empty() && !has_authenticators
    }

    pub(super) fn check(&self, plugins: Authenticators, problems: &mut Vec<Problem>) {
        // What could not be read is missing here: that there is no key is not the problem then.
        if problems
            .iter()
            .any(|problem| problem.key.starts_with("auth"))
        {
            return;
        }
        self.check_mode(plugins, problems);
        for (name, limit) in &self.limits {
            if *limit == LimitConfig::default() {
                let message = "limits nothing: set requests_per_minute or tokens_per_minute";
                problems.push(Problem::new(format!("auth.limits.{name}"), message));
            }
        }
        let mut seen = BTreeSet::new();
        for (i, key) in self.keys.iter().enumerate() {
            let mut problem = |message: &str| {
                problems.push(Problem::new(format!("auth.keys[{i}]"), message));
            };
            let identity = match &key.secret {
                KeySecret::Key(key) => {
                    let key = key.expose();
                    if key.len() < 8 || !key.bytes().all(|b| b.is_ascii_graphic()) {
                        problem(
                            "a key has at least 8 characters, all visible ASCII without spaces",
                        );
                    }
                    key.to_owned()
                }
                KeySecret::Hash(hash) => hash.id().to_owned(),
            };
            if !seen.insert(identity) {
                problem("this key is there twice: remove one");
            }
            if key
                .name
                .as_deref()
                .is_some_and(|name| name.trim().is_empty())
            {
                problem("name is empty: leave it out, or say who uses the key");
            }
            if let Some(limit) = &key.limit
                && !self.limits.contains_key(limit)
            {
                problem(&format!(
                    "there is no limit \"{limit}\": add [auth.limits.{limit}]"
                ));
            }
        }
    }

    fn check_mode(&self, plugins: Authenticators, problems: &mut Vec<Problem>) {
        let is_closed = plugins != Authenticators::None || !self.keys.is_empty();
        match self.mode {
            None if !is_closed => problems.push(Problem::new(
                "auth",
                "who may use the server is not said: set keys = [\"${EMBEDGATE_KEY}\"], or mode = \"none\" to let anybody in",
            )),
            Some(AuthMode::Keys) if self.keys.is_empty() => {
                problems.push(Problem::new("auth.keys", "mode is \"keys\" and there is no key: add one"));
            }
            Some(AuthMode::None) if !self.keys.is_empty() => {
                problems.push(Problem::new("auth.keys", "mode is \"none\" and there are keys: remove one of the two"));
            }
            Some(AuthMode::Keys) if plugins == Authenticators::Some => {
                let message = "is \"keys\", so that no plugin is asked, and a plugin authenticates: leave mode out to ask both";
                problems.push(Problem::new("auth.mode", message));
            }
            Some(AuthMode::None) if plugins == Authenticators::Some => {
                let message = "is \"none\", and a plugin authenticates: remove one of the two, or name the plugin's other hooks in its hooks";
                problems.push(Problem::new("auth.mode", message));
            }
            _ => {}
        }
    }
}
