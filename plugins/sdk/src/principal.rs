//! Building a principal: a subject, then what else is known of the caller.

use std::time::Duration;

use crate::{Lane, Principal};

impl Principal {
    /// Makes a principal who may use all models, of 1 to 256 bytes without control characters.
    ///
    /// The gateway asks again for each request, unless [`with_valid_for`](Self::with_valid_for) says otherwise.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            tenant: None,
            scopes: Vec::new(),
            allowed_models: None,
            cache_namespace: None,
            lane: None,
            limit: None,
            valid_for_ms: 0,
            attributes: Vec::new(),
        }
    }

    /// Sets the tenant.
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the scopes.
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Allows just these models: names, aliases, or prefixes that end in `*`.
    pub fn with_models(mut self, models: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// Shares cached vectors with the other callers of this namespace.
    pub fn with_cache_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.cache_namespace = Some(namespace.into());
        self
    }

    /// Sets the lane of requests that name none.
    pub fn with_lane(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Names the table of limits that holds for the caller.
    pub fn with_limit(mut self, limit: impl Into<String>) -> Self {
        self.limit = Some(limit.into());
        self
    }

    /// Lets the gateway answer for an equal request head from memory for so long.
    pub fn with_valid_for(mut self, duration: Duration) -> Self {
        self.valid_for_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// Adds an attribute for later hooks; at most 16 of at most 256 bytes.
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Returns an attribute that an authenticator set.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}
