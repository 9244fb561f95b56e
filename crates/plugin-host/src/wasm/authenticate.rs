//! The hook that says who the caller is.

mod identity;
pub(super) mod remembered;

use std::{sync::Arc, time::Duration};

use embedgate_request::{Error, ErrorKind, Hook, Identity, Limits};

use self::{
    identity::identity,
    remembered::{Remembered, key},
};
use super::{
    bindings::{embedgate::plugin::types, exports::embedgate::plugin::authenticator},
    exports::Exports,
    failure::Failure,
    guest::{CallBudget, Cost, Guest},
    instance::{LEAST_TRANSFER, Live},
    refusal,
};
use crate::interface::{Headers, RequestHead};

/// The answer of an authenticator.
pub(super) enum Verdict {
    /// The identity of the caller.
    Principal(Arc<Identity>),
    /// It knows no such credential.
    Unknown,
    /// Nobody who may come in.
    Refused(Error),
}

/// A plugin that says who sends a request.
pub(super) struct Authenticator<'a> {
    pub(super) guest: &'a Guest,
    /// The names of the headers that it sees.
    pub(super) headers: &'a [String],
    /// The principals of earlier requests, where they are remembered.
    pub(super) remembered: Option<&'a Remembered>,
    /// The limits that its principals may have.
    pub(super) limits: &'a Limits,
}

impl Authenticator<'_> {
    /// Asks who sends a request.
    ///
    /// # Errors
    /// The [`Failure`] of the plugin; the caller must not be let in.
    pub(super) async fn ask(&self, head: RequestHead<'_>) -> (Result<Verdict, Failure>, Cost) {
        let Self {
            guest,
            remembered,
            limits,
            ..
        } = *self;
        let headers = match visible(self.headers, head.headers) {
            Ok(headers) => headers,
            Err(error) => return (Ok(Verdict::Refused(error)), Cost::default()),
        };
        let key = key(&head, &headers);
        if let Some(identity) = remembered.and_then(|remembered| remembered.get(&key)) {
            return (Ok(Verdict::Principal(identity)), Cost::default());
        }
        let generation = remembered.map_or(0, Remembered::generation);
        let client_ip = head.client_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let query = query(head.query);
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| header(name, value))
            .collect();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| header(name, value))
            .collect();
        let asked = authenticator::RequestHead {
            id: head.id,
            method: head.method,
            path: head.path,
            query: &query,
            headers: &headers,
            client_ip: &client_ip,
        };
        let call = async |exports: &Exports, live: &mut Live| {
            let indices = exports.authenticator.as_ref();
            let indices = indices.expect("only plugins that authenticate are asked");
            let hook = indices.load(&mut live.store, &live.instance)?;
            hook.call_authenticate(&mut live.store, asked).await
        };
        let budget = CallBudget {
            hook: Hook::Authenticate,
            request_id: head.id,
            deadline: head.deadline,
            max_transfer: LEAST_TRANSFER,
        };
        let (result, cost) = guest.call(&budget, call).await;
        let verdict = match result {
            Err(failure) => Err(failure),
            Ok(Ok(None)) => Ok(Verdict::Unknown),
            Ok(Err(rejection)) => refusal::refusal(rejection).map(Verdict::Refused),
            Ok(Ok(Some(principal))) => {
                let valid_for = Duration::from_millis(principal.valid_for_ms.into());
                identity(principal, &guest.shared.name, limits).map(|identity| {
                    if let Some(remembered) = remembered
                        && !valid_for.is_zero()
                    {
                        remembered.put(&key, valid_for, &identity, generation);
                    }
                    Verdict::Principal(identity)
                })
            }
        };
        guest.count_illegal(Hook::Authenticate, &verdict);
        (verdict, cost)
    }
}

fn header<'a>(name: &'a str, value: &'a str) -> types::HeaderParam<'a> {
    types::HeaderParam { name, value }
}

/// The headers that the plugin sees, in the order of its configuration.
fn visible<'a>(
    names: &'a [String],
    headers: &'a dyn Headers,
) -> Result<Vec<(&'a str, &'a str)>, Error> {
    let mut visible = Vec::with_capacity(names.len());
    let mut wrong = None;
    for name in names {
        headers.each(name, &mut |value| match std::str::from_utf8(value) {
            Ok(value) => visible.push((name.as_str(), value)),
            Err(_) => wrong = Some(name),
        });
    }
    match wrong {
        None => Ok(visible),
        Some(name) => Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("the header {name} is not valid UTF-8"),
        )),
    }
}

/// A query's pairs, decoded.
fn query(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
