//! Building a refusal: a status with its usual code, then what else the caller should know.

use std::time::Duration;

use crate::{Header, Rejection};

impl Rejection {
    /// Makes a refusal with a status of 400 to 599 and a code of 1 to 64 of a-z, 0-9, `_`, `-` and `.`.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// 400: the request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// 401: the credential is wrong. Says in `www-authenticate` that a bearer token is wanted.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", message).with_header("www-authenticate", "Bearer")
    }

    /// 403: the caller is known, and may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    /// 429: come back later, said in `retry-after` in whole seconds, rounded up.
    pub fn too_many_requests(message: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        Self::new(429, "too_many_requests", message)
            .with_header("retry-after", &seconds.to_string())
    }

    /// 503: the plugin cannot tell now. The caller does not see the message.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "unavailable", message)
    }

    /// Sets the machine-readable code.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    /// Sets a header of the response: `www-authenticate`, `retry-after`, or one that begins with `x-` but not with
    /// `x-embedgate-`.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|header| header.name != name);
        self.headers.push(Header {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// Returns a header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name == name)
            .map(|header| header.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (ms, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let rejection = Rejection::too_many_requests("slow down", Duration::from_millis(ms));
            assert_eq!(rejection.header("retry-after"), Some(expected), "{ms} ms");
        }
    }

    #[test]
    fn a_header_that_is_set_again_is_there_once() {
        let rejection =
            Rejection::unauthorized("no").with_header("www-authenticate", "Bearer realm=\"x\"");
        assert_eq!(rejection.headers.len(), 1);
        assert_eq!(
            rejection.header("www-authenticate"),
            Some("Bearer realm=\"x\"")
        );
    }
}
