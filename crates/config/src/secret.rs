//! Values that must not be shown.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A text that is never shown: `***` in logs and in the resolved configuration.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret: Secret = serde_json::from_value("hunter2".into()).unwrap();
        assert_eq!(
            format!("{secret:?} {}", serde_json::to_string(&secret).unwrap()),
            "*** \"***\""
        );
    }
}
