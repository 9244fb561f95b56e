//! The extractor that asks for authentication: without it no handler gets a [`RequestContext`].

use std::{sync::Arc, time::Instant};

use axum::{
    extract::FromRequestParts,
    http::{header::AUTHORIZATION, request::Parts},
};

use super::{Gateway, error::OpenAiError, trace::RequestId};
use crate::request::RequestContext;

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
        let principal = gateway.authenticator.authenticate(authorization)?;
        let id = RequestId::of(&parts.extensions);
        let deadline = Instant::now() + gateway.config.request_timeout.0;
        Ok(Self(RequestContext {
            id,
            principal,
            deadline,
        }))
    }
}
