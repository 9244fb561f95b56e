//! A key of `[auth]`: written as the key alone, or as a table.

use std::{borrow::Cow, fmt, time::SystemTime};

use embedgate_request::{KeyHash, Lane, NamePattern};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Secret;

/// A key and what goes with it: written as the key alone, or as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyConfig {
    /// The key that the client sends, or the hash that the key is known by.
    #[serde(flatten)]
    pub secret: KeySecret,
    /// The name of the principal; keys of one name are one principal. None means a name made from the key.
    pub name: Option<String>,
    /// The lane of requests with this key that name none themselves; none where the model or their size says it.
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

impl<'de> Deserialize<'de> for KeyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
                let table = KeyTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let secret = match (table.key, table.hash, table.certificate) {
                    (Some(key), None, None) => KeySecret::Key(key),
                    (None, Some(hash), None) => KeySecret::Hash(hash),
                    (None, None, Some(name)) => KeySecret::Certificate(name),
                    (None, None, None) => return Err(de::Error::missing_field("key")),
                    _ => {
                        return Err(de::Error::custom(
                            "key, hash and certificate: there is more than one of them, keep one",
                        ));
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

/// A key as a table: `key`, `hash` or `certificate`, and what goes with it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    /// The key that the client sends.
    key: Option<Secret>,
    /// The hash of a key that `embedgate key new` printed, in the place of the key.
    #[schemars(with = "Option<String>")]
    hash: Option<KeyHash>,
    /// A name that the client's certificate is for, in the place of a key: a host's name or a URI among its subject alternative
    /// names. It needs `server.tls.client_ca`.
    certificate: Option<String>,
    /// The name of the principal: keys of one name are one principal. Without it: a name made from the key.
    name: Option<String>,
    /// The lane of requests with this key that name none themselves: `"query"` or `"bulk"`. Without it: as the model's
    /// `lane` says, else by their size.
    lane: Option<Lane>,
    /// The models that it opens: names, aliases, or the beginning of names and a `*`. Without it: all.
    models: Option<Vec<NamePattern>>,
    /// One of `auth.limits`. Without it: no limit.
    limit: Option<String>,
    /// From then on the key is refused: a date, or a time such as `2027-01-31T12:00:00Z`. Without it: never.
    expires: Option<Timestamp>,
    /// True where the key opens `POST /admin/reload`, too.
    #[serde(default)]
    admin: bool,
}

impl JsonSchema for KeyConfig {
    fn schema_name() -> Cow<'static, str> {
        "KeyConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<KeyTable>()] })
    }
}

/// A key, or its hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySecret {
    /// The key itself.
    Key(Secret),
    /// The hash of a key of `embedgate key new`.
    Hash(KeyHash),
    /// A name that a client's certificate is for: of a host, or a URI.
    Certificate(String),
}

/// A moment, written as a date or as `2027-01-31T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub struct Timestamp(#[schemars(with = "String")] pub SystemTime);

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
