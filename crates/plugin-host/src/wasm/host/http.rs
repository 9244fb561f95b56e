//! Requests of guests to other servers.

use std::time::{Duration, Instant};

use wasmtime::Result;

use crate::wasm::{
    bindings::embedgate::plugin::{http, types},
    outbound::{self, OutboundError},
    state::{GuestState, Phase},
};

impl From<OutboundError> for http::HttpError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Denied => Self::Denied,
            OutboundError::Invalid => Self::Invalid,
            OutboundError::Dns => Self::Dns,
            OutboundError::Connect => Self::Connect,
            OutboundError::Timeout => Self::Timeout,
            OutboundError::TooLarge => Self::TooLarge,
            OutboundError::Protocol => Self::Protocol,
        }
    }
}

impl http::Host for GuestState {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> Result<std::result::Result<http::Response, http::HttpError>> {
        self.outer_call("http")?;
        self.is_impure = true;
        let outbound = self.shared.grants.http.as_ref();
        let Some(outbound) = outbound.filter(|_| self.phase == Phase::Call) else {
            return Ok(Err(http::HttpError::Denied));
        };
        if self.n_http >= outbound.max_requests() {
            return Ok(Err(http::HttpError::Budget));
        }
        self.n_http += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let own = Duration::from_millis(request.timeout_ms.into());
        let request = outbound::Request {
            method: request.method,
            url: request.url,
            headers: pairs(request.headers),
            body: request.body,
            timeout: if own.is_zero() { left } else { own.min(left) },
        };
        let header = |(name, value)| types::HeaderResult { name, value };
        let answered = outbound.send(request).await;
        let response = |answer: outbound::Response| http::Response {
            status: answer.status,
            headers: answer.headers.into_iter().map(header).collect(),
            body: answer.body,
        };
        Ok(answered.map(response).map_err(Into::into))
    }
}

fn pairs(headers: Vec<types::HeaderResult>) -> Vec<(String, String)> {
    let pair = |header: types::HeaderResult| (header.name, header.value);
    headers.into_iter().map(pair).collect()
}
