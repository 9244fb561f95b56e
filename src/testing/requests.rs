//! Requests to the gateway in tests, and their answers.

use axum::{body::Body, extract::Request, http::HeaderMap};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::TestGateway;

/// An answer of the gateway.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of an error.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The message of an error.
    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

impl TestGateway {
    /// POSTs to `/v1/embeddings` with these headers.
    pub(crate) fn post(
        &self,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let mut request =
            Request::post("/v1/embeddings").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let router = self.router.clone();
        async move {
            let response = router.oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: serde_json::from_slice(&bytes).unwrap(),
            }
        }
    }

    /// POSTs an input to `/v1/embeddings`.
    #[expect(clippy::needless_pass_by_value, reason = "tests give a literal")]
    pub(crate) fn embed(&self, input: Value) -> impl Future<Output = Answer> + Send + use<> {
        self.post(&[], &json!({"model": "m", "input": input}))
    }

    /// Closes the backend's gate and waits until a batch of this one input waits there.
    pub(crate) async fn hold(&self, input: Value) -> tokio::task::JoinHandle<Answer> {
        self.control.close();
        let held = tokio::spawn(self.embed(input));
        self.batch_waits().await;
        held
    }

    /// Waits until a batch waits at the gate.
    pub(crate) async fn batch_waits(&self) {
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || control.wait_for_batch())
            .await
            .unwrap();
    }

    /// Waits until so many inputs wait or run.
    pub(crate) async fn in_flight(&self, n: usize) {
        self.until(|| self.model().batcher().in_flight() == n).await;
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }
}
