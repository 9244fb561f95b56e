//! Tells who a caller is from the request's `Authorization`, before its body is read.

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

    /// Finds the principal behind the value of an `Authorization` header: `Bearer KEY`, or the key alone.
    ///
    /// # Errors
    /// Unauthenticated when the key is missing or not one of the configured ones.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Principal, Error> {
        let Some(keys) = &self.keys else {
            return Ok(Principal::Anonymous);
        };
        let refused = |message: &str| {
            Error::new(ErrorKind::Unauthenticated, message).with_code("invalid_api_key")
        };
        let value = authorization
            .ok_or_else(|| refused("no API key given: send it as \"Authorization: Bearer KEY\""))?
            .trim_ascii();
        let key = match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => value,
        };
        let hash = blake3::hash(key);
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
