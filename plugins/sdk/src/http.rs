//! Requests to the addresses that the configuration grants: `grants = { http = { allow = ["https://..."] } }`.
//!
//! The host awaits the answer; a waiting plugin holds no thread. Redirects are answers, not followed.

use std::time::Duration;

use crate::{Header, host::http};

pub use crate::bindings::host::embedgate::plugin::http::{HttpError, Request, Response};

impl Request {
    /// Makes a GET request without headers, that may take as long as the call itself.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: "GET".to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 0,
        }
    }

    /// Makes a POST request.
    pub fn post(url: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let request = Self {
            method: "POST".to_owned(),
            body: body.into(),
            ..Self::get(url)
        };
        request.with_header("content-type", content_type)
    }

    /// Adds a header; names are lower-case.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Header {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// Gives up after `timeout`, where that is before the call's own deadline.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = crate::kv::to_ms(timeout);
        self
    }

    /// Sends the request and waits for the answer, whatever its status.
    ///
    /// # Errors
    /// There is no answer, or the request is not granted.
    pub fn send(&self) -> Result<Response, HttpError> {
        http::send(self)
    }
}

impl Response {
    /// Returns the first header of a name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name == name)
            .map(|header| header.value.as_str())
    }
}
