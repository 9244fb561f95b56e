//! `[server.tls]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;

/// The certificates of the server, and those of clients that it accepts. Files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct TlsConfig {
    /// A PEM file with the server's certificate, and those that signed it behind.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
    /// A PEM file with the certificates of those who sign certificates of clients. A client with such a certificate
    /// uses the key of `[auth]` whose certificate is one of its names. Without it: no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// True where a client without a certificate is not served. If not, it needs a key as ever.
    pub require_client_certificate: bool,
}

impl TlsConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        for (key, path) in [("certificate", &self.certificate), ("key", &self.key)] {
            if path.as_os_str().is_empty() {
                let message = "is missing: name a PEM file";
                problems.push(Problem::new(format!("server.tls.{key}"), message));
            }
        }
        if self.require_client_certificate && self.client_ca.is_none() {
            let message =
                "is true, and client_ca does not say who signs them: name a PEM file there";
            problems.push(Problem::new(
                "server.tls.require_client_certificate",
                message,
            ));
        }
    }
}
