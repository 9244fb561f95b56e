//! `[auth]`.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Problem, Secret};
use crate::request::Lane;

/// Who may use the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// `"keys"`: requests need one of `keys`; `"none"`: anybody may. None means `"keys"` where there are keys.
    pub mode: Option<AuthMode>,
    /// Keys that clients send as `Authorization: Bearer KEY`. Take them from the environment: `"${EMBEDGATE_KEY}"`.
    pub keys: Vec<KeyConfig>,
}

/// How callers are told apart.
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
    /// What the client sends.
    pub key: Secret,
    /// Who that is; keys of one name are one principal. None means a name made from the key.
    pub name: Option<String>,
    /// The lane of requests with this key that name none themselves. None means by their size.
    pub lane: Option<Lane>,
}

impl<'de> Deserialize<'de> for KeyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            key: Secret,
            name: Option<String>,
            lane: Option<Lane>,
        }
        struct KeyOrTable;
        impl<'de> de::Visitor<'de> for KeyOrTable {
            type Value = KeyConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or a table such as { key = \"...\", name = \"ragflow\" }")
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<KeyConfig, E> {
                Ok(KeyConfig {
                    key: Secret::new(key),
                    name: None,
                    lane: None,
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<KeyConfig, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Table { key, name, lane } = table;
                Ok(KeyConfig { key, name, lane })
            }
        }
        deserializer.deserialize_any(KeyOrTable)
    }
}

impl AuthConfig {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        // What could not be read is missing here: that there is no key is not the problem then.
        if problems
            .iter()
            .any(|problem| problem.key.starts_with("auth"))
        {
            return;
        }
        match (self.mode, self.keys.is_empty()) {
            (None, true) => problems.push(Problem::new(
                "auth",
                "who may use the server is not said: set keys = [\"${EMBEDGATE_KEY}\"], or mode = \"none\" to let anybody in",
            )),
            (Some(AuthMode::Keys), true) => {
                problems.push(Problem::new("auth.keys", "mode is \"keys\" and there is no key: add one"));
            }
            (Some(AuthMode::None), false) => {
                problems.push(Problem::new("auth.keys", "mode is \"none\" and there are keys: remove one of the two"));
            }
            _ => {}
        }
        let mut seen = BTreeSet::new();
        for (i, KeyConfig { key, name, .. }) in self.keys.iter().enumerate() {
            let mut problem = |message: &str| {
                problems.push(Problem::new(format!("auth.keys[{i}]"), message));
            };
            if key.expose().len() < 8 || !key.expose().bytes().all(|b| b.is_ascii_graphic()) {
                problem("a key has at least 8 characters, all visible ASCII without spaces");
            }
            if !seen.insert(key.expose()) {
                problem("this key is there twice: remove one");
            }
            if name.as_deref().is_some_and(|name| name.trim().is_empty()) {
                problem("name is empty: leave it out, or say who uses the key");
            }
        }
    }
}
