//! Tells who a caller is from the request's `Authorization`, before its body is read.

use std::sync::Arc;

use crate::{
    config::{AuthConfig, AuthMode, KeyConfig},
    error::{Error, ErrorKind},
    request::{Lane, Principal},
};

/// The keys that let callers in.
pub struct Authenticator {
    /// None where anybody may come in. Hashes, so that comparing takes the same time whatever is wrong with a key.
    keys: Option<Vec<(blake3::Hash, Caller)>>,
}

/// Who calls, and what their key's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The lane of requests that name none themselves.
    pub lane: Option<Lane>,
}

impl Authenticator {
    /// Takes the keys from the configuration.
    #[must_use]
    pub fn new(config: &AuthConfig) -> Self {
        let open = config.mode == Some(AuthMode::None);
        let keys = config.keys.iter().map(caller).collect();
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
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, Error> {
        let Some(keys) = &self.keys else {
            return Ok(Caller {
                principal: Principal::Anonymous,
                lane: None,
            });
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
        for (known, caller) in keys {
            if *known == hash {
                found = Some(caller);
            }
        }
        found
            .cloned()
            .ok_or_else(|| refused("the API key is not known"))
    }
}

/// The hash that a key is known by, and whose it is: by its name, else by a name that only the key gives.
fn caller(config: &KeyConfig) -> (blake3::Hash, Caller) {
    let key = config.key.expose().as_bytes();
    let name: Arc<str> = match &config.name {
        Some(name) => name.as_str().into(),
        None => {
            let id = blake3::derive_key("embedgate 2026-11 name of a key without one", key);
            blake3::Hash::from(id).to_hex().as_str().into()
        }
    };
    let caller = Caller {
        principal: Principal::Named(name),
        lane: config.lane,
    };
    (blake3::hash(key), caller)
}
