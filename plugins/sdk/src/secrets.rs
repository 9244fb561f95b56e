//! The secrets that the configuration grants: `grants = { secrets = { NAME = "${VARIABLE}" } }`.

use crate::host::secrets;

/// Returns a secret, or none where no such name is granted.
pub fn get(name: &str) -> Option<String> {
    secrets::get(name)
}
