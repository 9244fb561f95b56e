//! The extractor that asks for authentication: without it no handler gets a [`RequestContext`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::{HeaderMap, HeaderName, Method, header::AUTHORIZATION, request::Parts},
};
use embedgate_plugin_host::{Headers, RequestHead};
use embedgate_request::{Error, ErrorKind, Holder, Lane, RequestContext};

use super::{
    Gateway,
    connection::{NoRoom, Peer},
    error::Failed,
    routes::RouteInfo,
    trace::{Caller, RequestRecord},
};
use crate::auth::Credentials;

/// Says in which lane a request waits.
static LANE: HeaderName = HeaderName::from_static("x-embedgate-lane");
/// The headers for a key from clients without `Authorization`: Azure's, and gateways.
static KEY_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-api-key"),
];
/// The header with the client's time limit for the answer; it counts when it is less than the server's own limit.
static TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// A request from somebody who may be here.
pub(super) struct Context(pub(super) RequestContext);

impl FromRequestParts<Arc<Gateway>> for Context {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, Failed> {
        let RequestRecord { id, timings } = RequestRecord::of(&parts.extensions);
        if parts.extensions.get::<NoRoom>().is_some() {
            return Err(no_room().into());
        }
        let limit = gateway.config.request_timeout.0;
        let timeout = timeout(&parts.headers)?.map_or(limit, |own| own.min(limit));
        let deadline = Instant::now() + timeout;
        let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
        let head = RequestHead {
            id: &id,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &RequestHeaders(&parts.headers),
            client_ip: peer.address,
            deadline,
            timings: &timings,
        };
        let authorization = parts
            .headers
            .get(AUTHORIZATION)
            .or_else(|| KEY_HEADERS.iter().find_map(|name| parts.headers.get(name)))
            .map(|value| value.as_bytes());
        let credentials = Credentials {
            authorization,
            certificate_names: &peer.names,
        };
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.and_then(|path| RouteInfo::of(path.as_str())?.route);
        let asking = timings.span("auth");
        let principal = gateway
            .authenticator
            .authenticate(route, credentials, head)
            .await?;
        drop(asking);
        let identity = principal.identity();
        let allowance = identity.and_then(|identity| identity.allowance.as_ref());
        if let Some(identity) = identity {
            let caller = (Arc::clone(&identity.subject), identity.tenant.clone());
            parts
                .extensions
                .get::<Caller>()
                .inspect(|slot| slot.set(caller));
        }
        // Asking which models there are costs nothing.
        if let Some(allowance) = allowance.filter(|_| parts.method == Method::POST) {
            allowance.admit()?;
        }
        let own_lane = identity.and_then(|identity| identity.lane);
        let lane = lane(&parts.headers)?.or(own_lane);
        let memory = gateway.memory.open(Holder::of(&principal, peer.address));
        Ok(Self(RequestContext {
            id,
            principal,
            deadline,
            lane,
            memory,
            timings,
            begun: Arc::default(),
        }))
    }
}

fn no_room() -> Error {
    Error {
        retry_after: Some(Duration::from_secs(1)),
        ..Error::new(
            ErrorKind::Overloaded,
            "all server.max_connections connections have a request: try again later",
        )
    }
}

/// The headers of a request, as plugins are shown them.
#[derive(Debug)]
struct RequestHeaders<'h>(&'h HeaderMap);

impl Headers for RequestHeaders<'_> {
    fn each<'a>(&'a self, name: &str, found: &mut dyn FnMut(&'a [u8])) {
        for value in self.0.get_all(name) {
            found(value.as_bytes());
        }
    }
}

fn lane(headers: &HeaderMap) -> Result<Option<Lane>, Error> {
    let Some(value) = headers.get(&LANE) else {
        return Ok(None);
    };
    let known = Lane::ALL.into_iter().find(|lane| {
        value
            .as_bytes()
            .eq_ignore_ascii_case(lane.name().as_bytes())
    });
    let wrong = || bad_header(&LANE, "query or bulk", value.as_bytes());
    known.ok_or_else(wrong).map(Some)
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(&TIMEOUT) else {
        return Ok(None);
    };
    let ms = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let wrong = || {
        bad_header(
            &TIMEOUT,
            "a whole number of milliseconds, at least 1",
            value.as_bytes(),
        )
    };
    ms.filter(|ms| *ms > 0)
        .ok_or_else(wrong)
        .map(|ms| Some(Duration::from_millis(ms)))
}

fn bad_header(name: &HeaderName, expected: &str, got: &[u8]) -> Error {
    let shown: String = String::from_utf8_lossy(got).chars().take(40).collect();
    Error::new(
        ErrorKind::InvalidRequest,
        format!("the header {name} must be {expected}, got {shown:?}"),
    )
}
