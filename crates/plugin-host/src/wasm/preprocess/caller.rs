//! The caller of a request as a preprocessor is shown it.

use embedgate_request::{Identity, Lane};

use crate::wasm::bindings::embedgate::plugin::types;

/// The lists of an identity as the guest's bindings borrow them.
pub(super) struct Caller<'a> {
    identity: &'a Identity,
    scopes: Vec<&'a str>,
    models: Option<Vec<&'a str>>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Caller<'a> {
    /// Lends out the lists of an identity.
    pub(super) fn of(identity: &'a Identity) -> Self {
        let models = identity.allowed_models.as_ref();
        Self {
            identity,
            scopes: identity.scopes.iter().map(String::as_str).collect(),
            models: models.map(|models| models.iter().map(|pattern| pattern.0.as_str()).collect()),
            attributes: identity
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        }
    }

    /// Returns the principal that the guest gets.
    pub(super) fn lent(&'a self) -> types::PrincipalParam<'a> {
        types::PrincipalParam {
            subject: &self.identity.subject,
            tenant: self.identity.tenant.as_deref(),
            scopes: &self.scopes,
            allowed_models: self.models.as_deref(),
            cache_namespace: None,
            lane: self.identity.lane.map(|lane| match lane {
                Lane::Query => types::Lane::Query,
                Lane::Bulk => types::Lane::Bulk,
            }),
            limit: None,
            valid_for_ms: 0,
            attributes: &self.attributes,
        }
    }
}
