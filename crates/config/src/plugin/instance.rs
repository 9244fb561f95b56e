//! `plugins.NAME.instance`: how long an instance lives.

use std::{borrow::Cow, fmt, num::NonZeroU32};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The lifetime of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceConfig {
    /// One call: nothing of it outlives the call.
    Fresh,
    /// So many calls, one after another: for engines that take long to start.
    Reuse(NonZeroU32),
}

/// An instance that is used for many calls.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reuse {
    /// Calls of one instance, one after another.
    reuse: NonZeroU32,
}

impl JsonSchema for InstanceConfig {
    fn schema_name() -> Cow<'static, str> {
        "InstanceConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "fresh" }, generator.subschema_for::<Reuse>()] })
    }
}

impl Serialize for InstanceConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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
