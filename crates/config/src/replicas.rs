//! `models.NAME.replicas`: a number, or `"auto"`.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Copies of a backend that run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaCount {
    /// As few as a measurement finds to be nearly as fast as any, with many callers.
    Auto,
    /// So many.
    Fixed(usize),
}

impl ReplicaCount {
    /// Returns the number of replicas; one where it is not measured yet.
    #[must_use]
    pub fn get(self) -> usize {
        match self {
            Self::Auto => 1,
            Self::Fixed(n) => n,
        }
    }
}

impl JsonSchema for ReplicaCount {
    fn schema_name() -> Cow<'static, str> {
        "ReplicaCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "auto" }] })
    }
}

impl Serialize for ReplicaCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(n) => n.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ReplicaCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrAuto;
        impl de::Visitor<'_> for NumberOrAuto {
            type Value = ReplicaCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of replicas or \"auto\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ReplicaCount, E> {
                match text {
                    "auto" => Ok(ReplicaCount::Auto),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ReplicaCount, E> {
                // Far too many are refused with the other checks.
                Ok(ReplicaCount::Fixed(
                    usize::try_from(n).unwrap_or(usize::MAX),
                ))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ReplicaCount, E> {
                let unsigned = u64::try_from(n);
                let unsigned =
                    unsigned.map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))?;
                self.visit_u64(unsigned)
            }
        }
        deserializer.deserialize_any(NumberOrAuto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    #[test]
    fn replicas_are_a_number_or_auto() {
        let read = |text: &str| toml::from_str::<ModelConfig>(&format!("replicas = {text}"));
        assert_eq!(read("3").unwrap().replicas, ReplicaCount::Fixed(3));
        assert_eq!(read("\"auto\"").unwrap().replicas, ReplicaCount::Auto);
        let written = serde_json::to_string(&[ReplicaCount::Auto, ReplicaCount::Fixed(3)]);
        assert_eq!(written.unwrap(), r#"["auto",3]"#);
        for wrong in ["-1", "\"many\"", "1.5"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(
                error.contains("a number of replicas or \"auto\""),
                "{error}"
            );
        }
    }
}
