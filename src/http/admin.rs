//! `POST /admin/reload`: reads the configuration again. It is for keys with `admin = true`, and for whoever reaches
//! `server.admin_listen`; where there is neither, there is no such route.

use axum::{
    extract::{FromRequestParts, Request},
    http::{Method, Uri, header},
    response::{IntoResponse, Response},
};
use embedgate_request::{Error, ErrorKind};

use super::{
    Gateway, GatewayState,
    context::Context,
    error::{self, Failed},
};
use crate::reload::report::Outcome;

/// For a key that may.
pub(super) async fn reload(
    gateway: GatewayState,
    method: Method,
    uri: Uri,
    request: Request,
) -> Result<Response, Failed> {
    if !gateway.authenticator.has_admins() {
        return Ok(error::no_route(method, uri).await.into_response());
    }
    let (mut parts, _) = request.into_parts();
    let Context(ctx) = Context::from_request_parts(&mut parts, &gateway).await?;
    if !ctx.principal.identity().is_some_and(|who| who.is_admin) {
        let message = "this key does not open /admin/reload: a key with admin = true does";
        return Err(Error::new(ErrorKind::Forbidden, message).into());
    }
    answer(&gateway).await
}

/// For whoever reaches the address. A page in a browser on this machine does, and is refused.
pub(super) async fn reload_without_key(
    gateway: GatewayState,
    request: Request,
) -> Result<Response, Failed> {
    if request.headers().contains_key(header::ORIGIN) {
        let message = "the request comes from a page in a browser (it has a header Origin), which may not reload";
        return Err(Error::new(ErrorKind::Forbidden, message).into());
    }
    answer(&gateway).await
}

/// 200 where all is in force, 422 where something of it, or nothing, is.
async fn answer(gateway: &Gateway) -> Result<Response, Failed> {
    let report = gateway.reloads.reload().await?;
    Ok(error::outcome(report.status == Outcome::Reloaded, &*report))
}
