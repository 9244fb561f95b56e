//! Tells who a caller is from the request's head, before its body is read: by the configured keys, then by plugins.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use embedgate_config::{AuthConfig, AuthMode, KeyConfig, KeySecret};
use embedgate_plugin_host::{Plugins, RequestHead};
use embedgate_request::{Error, ErrorKind, HashKey, Identity, KeyHash, Limits, Principal, Route};

/// The credentials that a caller shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credentials<'a> {
    /// The value of the header `Authorization`: `Bearer KEY`, or the key alone.
    pub(crate) authorization: Option<&'a [u8]>,
    /// The names that the client's certificate is for.
    pub(crate) certificate_names: &'a [String],
}

/// Finds the principal behind a request.
pub(crate) struct Authenticator {
    access: ArcSwap<Access>,
    plugins: Arc<Plugins>,
    /// Keys the hashes by which plain keys are found, so that nobody can make two keys of one place.
    hash_key: HashKey,
}

/// The rules of the configuration for access.
struct Access {
    mode: Option<AuthMode>,
    open_routes: Vec<Route>,
    /// Keys that the configuration holds, by their hash.
    plain: HashMap<[u8; 32], Known>,
    /// Keys that it holds the hash of, by the part of them that is no secret.
    hashed: HashMap<String, (KeyHash, Known)>,
    /// Names of clients' certificates.
    certificates: HashMap<String, Known>,
    limits: Limits,
    has_admins: bool,
}

/// The identity of a key, and the end of its time.
struct Known {
    identity: Arc<Identity>,
    expires: Option<SystemTime>,
}

impl Known {
    /// The principal; none where its time is over.
    fn principal(&self) -> Option<Principal> {
        let is_over = self.expires.is_some_and(|end| end <= SystemTime::now());
        (!is_over).then(|| Principal::Named(Arc::clone(&self.identity)))
    }
}

impl Authenticator {
    /// Takes the keys from the configuration.
    #[must_use]
    pub(crate) fn new(config: &AuthConfig, plugins: Arc<Plugins>) -> Self {
        let hash_key = HashKey::random();
        Self {
            access: ArcSwap::from_pointee(Access::new(config, &hash_key, None)),
            plugins,
            hash_key,
        }
    }

    /// Takes other keys and limits. Requests that were let in stay in.
    pub(crate) fn reload(&self, config: &AuthConfig) {
        let before = self.access.load_full();
        let access = Access::new(config, &self.hash_key, Some(&before.limits));
        self.access.store(Arc::new(access));
        self.plugins.forget_callers();
    }

    /// Returns true when there are keys for administrators.
    #[must_use]
    pub(crate) fn has_admins(&self) -> bool {
        self.access.load().has_admins
    }

    /// Returns true when every caller is let in.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.access.load().mode == Some(AuthMode::None) && !self.plugins.has_authenticators()
    }

    /// Finds who sends a request: by its key, by its certificate, by plugins.
    ///
    /// # Errors
    /// Unauthenticated where no key is known and no plugin knows the caller; a plugin's refusal; Unavailable where a
    /// plugin that is asked fails.
    pub(crate) async fn authenticate(
        &self,
        route: Option<Route>,
        credentials: Credentials<'_>,
        head: RequestHead<'_>,
    ) -> Result<Principal, Error> {
        let access = self.access.load_full();
        // A plugin that authenticates closes the door, even where it came with a reload.
        if access.mode == Some(AuthMode::None) && !self.plugins.has_authenticators() {
            return Ok(Principal::Anonymous);
        }
        let key = credentials.authorization.map(bare_key);
        if let Some(known) = key.and_then(|key| access.known(key, &self.hash_key)) {
            let expired = || refused("the API key has expired").with_code("api_key_expired");
            return known.principal().ok_or_else(expired);
        }
        let mut names = credentials.certificate_names.iter();
        if let Some(known) = names.find_map(|name| access.certificates.get(name)) {
            let message = "auth.keys: the time of this client's certificate is over";
            let expired = || refused(message).with_code("api_key_expired");
            return known.principal().ok_or_else(expired);
        }
        if route.is_some_and(|route| access.open_routes.contains(&route)) {
            return Ok(Principal::Anonymous);
        }
        let asked = match access.mode {
            Some(AuthMode::Keys) => None,
            _ => {
                let asked = self.plugins.authenticate(route, &access.limits, head);
                asked.await?
            }
        };
        match asked {
            Some(identity) => Ok(Principal::Named(identity)),
            None if key.is_some() => Err(refused(
                "Incorrect API key provided: no such key is known here",
            )),
            None => Err(refused(
                "no API key given: send it as \"Authorization: Bearer KEY\"",
            )),
        }
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message).with_code("invalid_api_key")
}

/// The key in the value of an `Authorization` header. `RAGFlow`'s provider for Ollama writes `Bear`.
fn bare_key(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let space = value.iter().position(|byte| *byte == b' ');
    let (scheme, key) = value.split_at(space.unwrap_or(0));
    let is_scheme = |name: &&[u8]| scheme.eq_ignore_ascii_case(name);
    match [&b"bearer"[..], b"bear"].iter().any(is_scheme) {
        true => key.trim_ascii(),
        false => value,
    }
}

impl Access {
    fn new(config: &AuthConfig, hash_key: &HashKey, before: Option<&Limits>) -> Self {
        let limits = Limits::new(&config.limits, before);
        let mut access = Self {
            mode: config.mode,
            open_routes: config.open_routes.clone(),
            plain: HashMap::new(),
            hashed: HashMap::new(),
            certificates: HashMap::new(),
            limits,
            has_admins: config.keys.iter().any(|key| key.admin),
        };
        for key in &config.keys {
            let known = Known {
                identity: Arc::new(identity(key, &access.limits)),
                expires: key.expires.map(|end| end.0),
            };
            match &key.secret {
                KeySecret::Key(key) => {
                    let hash = blake3::keyed_hash(hash_key.bytes(), key.expose().as_bytes());
                    access.plain.insert(*hash.as_bytes(), known);
                }
                KeySecret::Hash(hash) => {
                    let id = hash.id().to_owned();
                    access.hashed.insert(id, (hash.clone(), known));
                }
                KeySecret::Certificate(name) => {
                    // Names of hosts are the same in any case, URIs are not.
                    let name = match name.contains(':') {
                        true => name.clone(),
                        false => name.to_ascii_lowercase(),
                    };
                    access.certificates.insert(name, known);
                }
            }
        }
        access
    }

    /// Finds the identity of a key. The time that this takes does not tell what a wrong key has in common with a right
    /// one: keys are found by a hash under a secret, or by their public part and then compared in constant time.
    fn known(&self, key: &[u8], hash_key: &HashKey) -> Option<&Known> {
        let hash = blake3::keyed_hash(hash_key.bytes(), key);
        let hashed = || {
            let (hash, known) = self.hashed.get(embedgate_request::key::id_of(key)?)?;
            hash.matches(key).then_some(known)
        };
        self.plain.get(hash.as_bytes()).or_else(hashed)
    }
}

/// Makes the identity of a key: under the key's name, else under a name that only the key gives.
fn identity(config: &KeyConfig, limits: &Limits) -> Identity {
    let subject: Arc<str> = match (&config.name, &config.secret) {
        (Some(name), _) => name.as_str().into(),
        (None, KeySecret::Hash(hash)) => hash.id().into(),
        (None, KeySecret::Certificate(name)) => name.as_str().into(),
        (None, KeySecret::Key(key)) => {
            let context = "embedgate 2026-11 name of a key without one";
            let id = blake3::derive_key(context, key.expose().as_bytes());
            blake3::Hash::from(id).to_hex().as_str().into()
        }
    };
    let limit = config.limit.as_deref();
    Identity {
        allowance: limit.and_then(|limit| limits.allowance(limit, &subject)),
        namespace: Arc::clone(&subject),
        subject,
        allowed_models: config.models.clone(),
        lane: config.lane,
        is_admin: config.admin,
        ..Identity::default()
    }
}
