//! The identity of a plugin's principal, where the principal is a legal one.

use std::sync::Arc;

use embedgate_request::{Identity, Lane, Limits, NamePattern};

use crate::wasm::{bindings::embedgate::plugin::types, failure::Failure};

const MOST_SUBJECT_BYTES: usize = 256;
const MOST_ATTRIBUTES: usize = 16;
const MOST_ATTRIBUTE_BYTES: usize = 256;
/// Scopes, and names of models, that a principal may have.
const MOST_NAMES: usize = 128;

/// Makes an identity of a plugin's principal, where the principal is a legal one.
pub(super) fn identity(
    principal: types::PrincipalResult,
    plugin: &str,
    limits: &Limits,
) -> Result<Arc<Identity>, Failure> {
    let wrong = |message: String| Err(Failure::Output(message));
    let subject = principal.subject;
    if !(1..=MOST_SUBJECT_BYTES).contains(&subject.len()) || subject.chars().any(char::is_control) {
        return wrong(format!(
            "a subject has 1 to {MOST_SUBJECT_BYTES} bytes without control characters, got {subject:.300?}"
        ));
    }
    let tenant = principal.tenant;
    let names = principal.scopes.iter();
    let names = names.chain(principal.allowed_models.iter().flatten());
    let is_bad =
        |text: &String| text.len() > MOST_SUBJECT_BYTES || text.chars().any(char::is_control);
    let mut names = names.chain(&principal.cache_namespace).chain(&tenant);
    if let Some(name) = names.find(|name| is_bad(name)) {
        return wrong(format!(
            "a tenant, scope, model or namespace has at most {MOST_SUBJECT_BYTES} bytes without control characters, got {name:.300?}"
        ));
    }
    let n_models = principal.allowed_models.as_ref().map_or(0, Vec::len);
    if principal.scopes.len().max(n_models) > MOST_NAMES {
        return wrong(format!("more than {MOST_NAMES} scopes or allowed models"));
    }
    let is_long = |text: &String| text.len() > MOST_ATTRIBUTE_BYTES;
    let attributes = principal.attributes;
    if attributes.len() > MOST_ATTRIBUTES
        || attributes
            .iter()
            .any(|(name, value)| is_long(name) || is_long(value))
    {
        return wrong(format!(
            "at most {MOST_ATTRIBUTES} attributes of at most {MOST_ATTRIBUTE_BYTES} bytes"
        ));
    }
    let allowance = match &principal.limit {
        None => None,
        Some(limit) => match limits.allowance(limit, &own(plugin, &subject)) {
            Some(allowance) => Some(allowance),
            None => return wrong(format!("there is no [auth.limits.{limit:.100}]")),
        },
    };
    let patterns = |names: Vec<String>| names.into_iter().map(NamePattern).collect();
    Ok(Arc::new(Identity {
        namespace: own(
            plugin,
            principal.cache_namespace.as_deref().unwrap_or(&subject),
        )
        .into(),
        subject: subject.into(),
        tenant,
        scopes: principal.scopes,
        allowed_models: principal.allowed_models.map(patterns),
        lane: principal.lane.map(|lane| match lane {
            types::Lane::Query => Lane::Query,
            types::Lane::Bulk => Lane::Bulk,
        }),
        allowance,
        attributes,
        // No plugin makes administrators.
        is_admin: false,
    }))
}

/// A name that neither a key nor another plugin can give: control characters stand in no name.
fn own(plugin: &str, name: &str) -> String {
    format!("\u{1f}{plugin}\u{1f}{name}")
}
