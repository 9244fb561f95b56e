//! The hook that says who the caller is.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use embedgate_request::{Error, Hook, Identity, Lane, Limits, NamePattern};

use super::{
    bindings::{embedgate::plugin::types, exports::embedgate::plugin::authenticator},
    guest::{Cost, Failure, Guest, LEAST_TRANSFER, Terms},
    refusal,
};
use crate::words::{Head, Headers};

const MOST_SUBJECT_BYTES: usize = 256;
const MOST_ATTRIBUTES: usize = 16;
const MOST_ATTRIBUTE_BYTES: usize = 256;
/// Scopes, and names of models, that a principal may have.
const MOST_NAMES: usize = 128;
/// Credentials that are remembered; beyond, those whose time is over are dropped, and then all.
const MOST_REMEMBERED: usize = 10_000;
/// The head of a request that is remembered; a larger one is asked about each time.
const MOST_HEAD_BYTES: usize = 4 << 10;

/// The answer of an authenticator.
pub(super) enum Verdict {
    /// The identity of the caller.
    Principal(Arc<Identity>),
    /// It knows no such credential.
    Unknown,
    /// Nobody who may come in.
    Refused(Error),
}

/// Principals by request head, for as long as their plugin allows.
#[derive(Default)]
pub(super) struct Remembered {
    by_head: DashMap<Box<[u8]>, (Instant, Arc<Identity>), foldhash::fast::RandomState>,
    /// Goes up when all are forgotten: what was asked for before is not remembered any more.
    generation: AtomicU64,
}

impl Remembered {
    fn get(&self, key: &[u8]) -> Option<Arc<Identity>> {
        let found = self.by_head.get(key)?;
        let (until, identity) = &*found;
        (Instant::now() < *until).then(|| Arc::clone(identity))
    }

    pub(super) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.by_head.clear();
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn put(&self, key: &[u8], time: Duration, identity: &Arc<Identity>, generation: u64) {
        if key.len() > MOST_HEAD_BYTES {
            return;
        }
        let now = Instant::now();
        if self.by_head.len() >= MOST_REMEMBERED {
            self.by_head.retain(|_, (until, _)| *until > now);
            if self.by_head.len() >= MOST_REMEMBERED {
                self.by_head.clear();
            }
        }
        let known = (now + time, Arc::clone(identity));
        self.by_head.insert(key.into(), known);
        if self.generation() != generation {
            self.by_head.remove(key);
        }
    }
}

/// Asks a plugin who sends a request.
///
/// # Errors
/// The [`Failure`] of the plugin; the caller must not be let in.
pub(super) async fn authenticate(
    guest: &Guest,
    names: &[String],
    remembered: Option<&Remembered>,
    limits: &Limits,
    head: Head<'_>,
) -> (Result<Verdict, Failure>, Cost) {
    let headers = match visible(names, head.headers) {
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
    let call = async |exports: &super::guest::Exports, live: &mut super::guest::Live| {
        let indices = exports.authenticator.as_ref();
        let indices = indices.expect("only plugins that authenticate are asked");
        let hook = indices.load(&mut live.store, &live.instance)?;
        hook.call_authenticate(&mut live.store, asked).await
    };
    let terms = Terms {
        hook: Hook::Authenticate,
        request_id: head.id,
        deadline: head.deadline,
        max_transfer: LEAST_TRANSFER,
    };
    let (result, cost) = guest.call(&terms, call).await;
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
            embedgate_request::ErrorKind::InvalidRequest,
            format!("the header {name} is not valid UTF-8"),
        )),
    }
}

/// Everything that the plugin sees of a request but its id: equal for equal requests alone.
fn key(head: &Head<'_>, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1024);
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    match head.client_ip {
        None => part(&[]),
        Some(IpAddr::V4(v4)) => part(&v4.octets()),
        Some(IpAddr::V6(v6)) => part(&v6.octets()),
    }
    // No query and an empty one are two things.
    part(&[u8::from(head.query.is_some())]);
    for text in [head.method, head.path, head.query.unwrap_or_default()] {
        part(text.as_bytes());
    }
    for (name, value) in headers {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    key
}

/// A query's pairs, decoded.
fn query(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// A name that neither a key nor another plugin can give: control characters stand in no name.
fn own(plugin: &str, name: &str) -> String {
    format!("\u{1f}{plugin}\u{1f}{name}")
}

/// Makes an identity of a plugin's principal, where the principal is a legal one.
fn identity(
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
