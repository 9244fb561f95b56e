//! The extractor that asks for authentication: without it no handler gets a [`RequestContext`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};

use super::{Gateway, error::OpenAiError, trace::RequestId};
use crate::{
    error::{Error, ErrorKind},
    request::{Lane, RequestContext},
};

/// Says in which lane a request waits.
const LANE: &str = "x-embedgate-lane";
/// How long the client waits for the answer; counts where it is less than the server's own limit.
const TIMEOUT: &str = "x-request-timeout-ms";

/// A request from somebody who may be here.
pub(super) struct Context(pub(super) RequestContext);

impl FromRequestParts<Arc<Gateway>> for Context {
    type Rejection = OpenAiError;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, OpenAiError> {
        let authorization = parts
            .headers
            .get(AUTHORIZATION)
            .map(|value| value.as_bytes());
        let caller = gateway.authenticator.authenticate(authorization)?;
        let id = RequestId::of(&parts.extensions);
        let limit = gateway.config.request_timeout.0;
        let timeout = timeout(&parts.headers)?.map_or(limit, |own| own.min(limit));
        Ok(Self(RequestContext {
            id,
            principal: caller.principal,
            deadline: Instant::now() + timeout,
            lane: lane(&parts.headers)?.or(caller.lane),
        }))
    }
}

fn lane(headers: &HeaderMap) -> Result<Option<Lane>, Error> {
    let Some(value) = headers.get(LANE) else {
        return Ok(None);
    };
    let known = Lane::ALL.into_iter().find(|lane| {
        value
            .as_bytes()
            .eq_ignore_ascii_case(lane.name().as_bytes())
    });
    let wrong = || bad_header(LANE, "query or bulk", value.as_bytes());
    known.ok_or_else(wrong).map(Some)
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let ms = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let wrong = || {
        bad_header(
            TIMEOUT,
            "a whole number of milliseconds, at least 1",
            value.as_bytes(),
        )
    };
    ms.filter(|ms| *ms > 0)
        .ok_or_else(wrong)
        .map(|ms| Some(Duration::from_millis(ms)))
}

fn bad_header(name: &str, expected: &str, got: &[u8]) -> Error {
    let shown: String = String::from_utf8_lossy(got).chars().take(40).collect();
    Error::new(
        ErrorKind::InvalidRequest,
        format!("the header {name} must be {expected}, got {shown:?}"),
    )
}
