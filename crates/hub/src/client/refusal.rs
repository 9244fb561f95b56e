//! A hub's refusal: its meaning, its own words, and how long the hub wants to be left alone.

use std::time::Duration;

use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use super::{Client, read};
use crate::{
    Hub,
    endpoint::{Endpoint, shown},
    error::{HubError, token_variable},
    tries::Failure,
};

/// Bytes of a refusal that are read.
const MOST_REFUSAL: usize = 64 << 10;
/// Bytes of a server's own words that are shown.
const MOST_WORDS: usize = 300;

impl Client {
    /// Names what the hub means by its refusal.
    pub(super) async fn refused(
        &self,
        endpoint: &Endpoint,
        is_home: bool,
        response: Response,
    ) -> Failure {
        let url = response.url().clone();
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let wait = wait(response.headers());
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        // A refusal that breaks off is one all the same.
        let body = read(response, MOST_REFUSAL).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let words = words(message, &body);
        let (endpoint_name, variable) = (endpoint.to_string(), token_variable(endpoint.hub));
        let is_revision = code.as_deref() == Some("RevisionNotFound")
            || (endpoint.hub == Hub::ModelScope && words.to_lowercase().contains("revision"));
        let error = match (code.as_deref(), status) {
            // A server of files, or a proxy: what it says is not the hub's word on the model.
            _ if !is_home => HubError::Status {
                what: shown(&url),
                status: status.as_u16(),
                words,
            },
            (Some("GatedRepo"), _) => HubError::Gated {
                model: String::new(),
                endpoint: endpoint_name,
                variable,
                words,
            },
            (_, StatusCode::UNAUTHORIZED) if words.contains("Invalid credentials") => {
                HubError::Token {
                    endpoint: endpoint_name,
                    variable,
                    words,
                }
            }
            _ if is_revision && status == StatusCode::NOT_FOUND => HubError::NoRevision {
                model: String::new(),
                revision: String::new(),
                usual: endpoint.hub.default_revision(),
                endpoint: endpoint_name,
            },
            (Some("RepoNotFound"), _)
            | (None, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => HubError::NoModel {
                model: String::new(),
                endpoint: endpoint_name,
                variable,
                words,
            },
            _ => HubError::Status {
                what: shown(&url),
                status: status.as_u16(),
                words,
            },
        };
        Failure { error, wait }
    }
}

/// The time that a server wants to be left alone.
///
/// Source: Hugging Face's `RateLimit: "api";r=0;t=55` has the seconds until more requests are taken.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = text(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    let limit = || {
        let fields = text("ratelimit")?;
        let field = |name: &str| {
            let fields = fields.split(';').map(str::trim);
            fields
                .filter_map(|field| field.strip_prefix(name))
                .find_map(|value| value.parse::<u64>().ok())
        };
        (field("r=")? == 0).then(|| field("t=")).flatten()
    };
    seconds.or_else(limit).map(Duration::from_secs)
}

/// A server's own words of its refusal, after a colon.
fn words(message: Option<String>, body: &str) -> String {
    let of_body = || {
        let body: serde_json::Value = serde_json::from_str(body).ok()?;
        let text = |key: &str| body.get(key).and_then(|value| value.as_str());
        let said = text("error").or_else(|| text("Message"))?;
        Some(match text("RequestId") {
            Some(id) => format!("{said} (request {id})"),
            None => said.to_owned(),
        })
    };
    match message.or_else(of_body) {
        Some(said) if !said.is_empty() => {
            let said: String = said
                .chars()
                .filter(|c| !c.is_control())
                .take(MOST_WORDS)
                .collect();
            format!(": {said}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_server_says_how_long_to_wait_in_two_ways() {
        let of = |name: &'static str, value: &'static str| {
            wait(&HeaderMap::from_iter([(
                name.parse::<reqwest::header::HeaderName>().unwrap(),
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(of("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(
            of("ratelimit", r#""api";r=0;t=55"#),
            Some(Duration::from_secs(55))
        );
        assert_eq!(of("ratelimit", r#""api";r=12;t=55"#), None);
        assert_eq!(of("date", "3"), None);
    }
}
