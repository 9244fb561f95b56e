//! The caller of a request, and the context that authentication makes of it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{Account, Allowance, Lane, NamePattern, Timings};

/// The context of a request: its caller, its id and its deadline. Only authentication makes one.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// As in the log and the `x-request-id` header.
    pub id: Arc<str>,
    /// The caller.
    pub principal: Principal,
    /// The time at which the request's time is over.
    pub deadline: Instant,
    /// The lane that the caller or their key's configuration asks for.
    pub lane: Option<Lane>,
    /// Its part of the memory of all requests.
    pub memory: Account,
    /// The time that the request spent in each step.
    pub timings: Arc<Timings>,
    /// The steps that it has passed, so that its parts are not refused one by one.
    pub begun: Arc<Begun>,
}

/// The steps that a request has passed. A part of one that has begun is charged whatever is left, and waits as long as it must.
#[derive(Debug, Default)]
pub struct Begun {
    charged: AtomicBool,
    /// Its place among those who wait.
    admitted: OnceLock<u64>,
}

impl Begun {
    /// Returns the state of a request that is held to no limit.
    #[must_use]
    pub fn already() -> Self {
        Self {
            charged: true.into(),
            admitted: 0.into(),
        }
    }

    /// Notes that tokens are charged; returns whether some were before.
    pub fn charge(&self) -> bool {
        self.charged.swap(true, Ordering::Relaxed)
    }

    /// Returns true when a part of the request was let into a queue.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.admitted.get().is_some()
    }

    /// Notes that a part of it is let into a queue. Returns the place of the whole request among those who wait: `next`, if
    /// this is its first part.
    pub fn admit(&self, next: impl FnOnce() -> u64) -> u64 {
        *self.admitted.get_or_init(next)
    }
}

/// The identity of a caller.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Nobody was asked: the configuration lets anybody in.
    Anonymous,
    /// Somebody known by a key or by a plugin.
    Named(Arc<Identity>),
}

/// Somebody, and what they may do.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Stable name.
    pub subject: Arc<str>,
    /// The organization that they belong to.
    pub tenant: Option<String>,
    /// The actions that the principal may do, in the words of the authenticator.
    pub scopes: Vec<String>,
    /// The models that they may use; none: all.
    pub allowed_models: Option<Vec<NamePattern>>,
    /// The namespace of the principal's cached results: principals with equal namespaces share them.
    pub namespace: Arc<str>,
    /// The lane of their requests that name none.
    pub lane: Option<Lane>,
    /// The allowance that is left of the principal's limit.
    pub allowance: Option<Arc<Allowance>>,
    /// More about them, for plugins.
    pub attributes: Vec<(String, String)>,
    /// True when the principal may change what the gateway serves.
    pub is_admin: bool,
}

impl Principal {
    /// Returns the identity of the principal, where it is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Anonymous => None,
            Self::Named(identity) => Some(identity),
        }
    }

    /// Returns the namespace of the principal's results in the cache; none for an anonymous principal.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(&self.identity()?.namespace)
    }

    /// Returns true when the principal may use a model of these names.
    pub fn may_use<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let allowed = self
            .identity()
            .and_then(|identity| identity.allowed_models.as_ref());
        let Some(allowed) = allowed else {
            return true;
        };
        let is_allowed = |name| allowed.iter().any(|pattern| pattern.matches(name));
        names.into_iter().any(is_allowed)
    }
}
