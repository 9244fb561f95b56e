//! Tells who a caller is from the request's head, before its body is read.

use axum::http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    config::{AuthConfig, AuthMode},
    error::{Error, ErrorKind},
    request::Principal,
};

/// The keys that let callers in.
pub struct Authenticator {
    /// None where anybody may come in. Hashes, so that comparing takes the same time whatever is wrong with a key.
    keys: Option<Vec<blake3::Hash>>,
}

impl Authenticator {
    /// Takes the keys from the configuration.
    #[must_use]
    pub fn new(config: &AuthConfig) -> Self {
        let open = config.mode == Some(AuthMode::None);
        let keys = config
            .keys
            .iter()
            .map(|key| blake3::hash(key.expose().as_bytes()))
            .collect();
        Self {
            keys: (!open).then_some(keys),
        }
    }

    /// Whether anybody may come in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// Finds the principal of a request.
    ///
    /// # Errors
    /// Unauthenticated when the key is missing or not one of the configured ones.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Error> {
        let Some(keys) = &self.keys else {
            return Ok(Principal::Anonymous);
        };
        let refused = |message: &str| {
            Error::new(ErrorKind::Unauthenticated, message).with_code("invalid_api_key")
        };
        let header = headers
            .get(AUTHORIZATION)
            .ok_or_else(|| refused("no API key given: send it as \"Authorization: Bearer KEY\""))?;
        let text = header.to_str().unwrap_or_default();
        let key = match text.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
            _ => text.trim(),
        };
        let hash = blake3::hash(key.as_bytes());
        // Every key is compared, each in constant time.
        let mut found = None;
        for (i, known) in keys.iter().enumerate() {
            if *known == hash {
                found = Some(i);
            }
        }
        found
            .map(Principal::Key)
            .ok_or_else(|| refused("the API key is not known"))
    }
}
