//! `[auth]`.

use serde::{Deserialize, Serialize};

use super::{Problem, Secret};

/// Who may use the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// `"keys"`: requests need one of `keys`; `"none"`: anybody may. None means `"keys"` where there are keys.
    pub mode: Option<AuthMode>,
    /// Keys that clients send as `Authorization: Bearer KEY`. Take them from the environment: `"${EMBEDGATE_KEY}"`.
    pub keys: Vec<Secret>,
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

impl AuthConfig {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
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
        for (i, key) in self.keys.iter().enumerate() {
            if key.expose().len() < 8 || !key.expose().bytes().all(|b| b.is_ascii_graphic()) {
                let message = "a key has at least 8 characters, all visible ASCII without spaces";
                problems.push(Problem::new(format!("auth.keys[{i}]"), message));
            }
        }
    }
}
