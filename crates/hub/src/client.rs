//! Requests to a hub: its token stays with it, redirects are followed by hand, and what may pass is tried again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use reqwest::{
    Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, LINK, LOCATION, RANGE,
        RETRY_AFTER,
    },
    redirect::Policy,
};
use serde::de::DeserializeOwned;

use crate::{
    Hub,
    error::{HubError, token_variable},
    existing::Caches,
};

/// A connection that is not there after so long will not be.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A hub sends one to a server of files, and mirrors one more.
const MOST_REDIRECTS: usize = 5;
/// Tries for a file without a byte of progress.
pub(crate) const TRIES: usize = 8;
/// Tries for a listing: another hub may have answered long before.
const LISTING_TRIES: usize = 4;
/// Bytes of a listing, and of a refusal, that are read.
const MOST_LISTING: usize = 64 << 20;
const MOST_REFUSAL: usize = 64 << 10;
/// The longest pause between tries; a hub that asks for more is given it, up to [`MOST_ASKED`].
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const MOST_ASKED: Duration = Duration::from_secs(300);
/// Bytes of a server's own words that are shown.
const MOST_WORDS: usize = 300;

/// A hub, or a mirror of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its protocol.
    pub hub: Hub,
    /// Its address, without a slash at the end.
    pub url: String,
}

impl fmt::Display for Endpoint {
    /// Without a name and password that the address may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.url) {
            Ok(url) => f.write_str(shown(&url).trim_end_matches('/')),
            Err(_) => f.write_str(&self.url),
        }
    }
}

impl Endpoint {
    /// An address of it: each part is encoded whole.
    pub(crate) fn address(
        &self,
        before: &[&str],
        model: &str,
        after: &[&str],
    ) -> Result<Url, HubError> {
        let none = || {
            HubError::Listing(format!(
                "{self} is no address of a hub: expected http:// or https://"
            ))
        };
        let mut url = Url::parse(&self.url).map_err(|_| none())?;
        url.path_segments_mut()
            .map_err(|()| none())?
            .pop_if_empty()
            .extend(before)
            .extend(model.split('/'))
            .extend(after);
        Ok(url)
    }
}

/// Settings that the environment gives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hubs that are asked.
    pub endpoints: Vec<Endpoint>,
    /// For Hugging Face.
    pub hugging_face_token: Option<String>,
    /// For ModelScope.
    pub modelscope_token: Option<String>,
    /// Connections at a time, of all files together.
    pub connections: usize,
    /// A pause after the first failure; the next are twice as long each.
    pub first_pause: Duration,
    /// True when a model is taken from the first hub of the list that has it, and not from the first hub that answers.
    pub is_ordered: bool,
    /// The caches in which files may exist already.
    pub caches: Caches,
}

/// A failed try, and how long the server wants to be left alone.
pub(crate) struct Failure {
    pub(crate) error: HubError,
    pub(crate) wait: Option<Duration>,
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { error, wait: None }
    }
}

/// Requests to all hubs.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) settings: Settings,
    /// The time until which an endpoint wants to be left alone, by its address.
    held: Mutex<HashMap<String, tokio::time::Instant>>,
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self, HubError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may be first: it installs the same.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("embedgate/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build();
        let http = http.map_err(|error| HubError::Network {
            what: "the client of the hubs".into(),
            problem: causes(&error),
        })?;
        Ok(Self {
            http,
            settings,
            held: Mutex::default(),
        })
    }

    /// Leaves an endpoint alone for a while, in all connections.
    pub(crate) fn hold(&self, endpoint: &Endpoint, wait: Duration) {
        let until = tokio::time::Instant::now() + wait.min(MOST_ASKED);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.entry(endpoint.url.clone()).or_insert(until);
        *at = until.max(*at);
    }

    /// Waits until an endpoint may be asked.
    pub(crate) async fn wait_for(&self, endpoint: &Endpoint) {
        let until = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.get(&endpoint.url).copied()
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// One try to open what a hub has at an address, from `start` on up to `end`; all of it where there is none.
    pub(crate) async fn open(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        range: Option<(u64, u64)>,
    ) -> Result<Response, Failure> {
        let mut url = url.clone();
        let home = Url::parse(&endpoint.url).ok();
        for _ in 0..=MOST_REDIRECTS {
            // Ranges and lengths are those of the file itself.
            let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let mut headers = HeaderMap::from_iter([identity]);
            let is_home = home
                .as_ref()
                .is_some_and(|home| home.origin() == url.origin());
            if is_home {
                self.authorize(endpoint.hub, &mut headers);
            }
            if let Some((start, end)) = range {
                let value = HeaderValue::try_from(format!("bytes={start}-{}", end - 1));
                headers.extend(value.ok().map(|value| (RANGE, value)));
            }
            let sent = self.http.get(url.clone()).headers(headers).send().await;
            let response = sent.map_err(|error| HubError::Network {
                what: shown(&url),
                problem: causes(&error),
            })?;
            if response.status().is_redirection() {
                let location = response.headers().get(LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                let next = location.and_then(|location| url.join(location).ok());
                url = next.ok_or_else(|| HubError::Network {
                    what: shown(&url),
                    problem: "it redirects to no address".into(),
                })?;
                continue;
            }
            return match response.status().is_success() {
                true => Ok(response),
                false => Err(self.refused(endpoint, is_home, response).await),
            };
        }
        Err(HubError::Network {
            what: shown(&url),
            problem: format!("it redirects more than {MOST_REDIRECTS} times"),
        }
        .into())
    }

    fn authorize(&self, hub: Hub, headers: &mut HeaderMap) {
        let token = match hub {
            Hub::HuggingFace => &self.settings.hugging_face_token,
            Hub::ModelScope => &self.settings.modelscope_token,
        };
        let Some(token) = token else { return };
        let mut add = |name, value: String| {
            if let Ok(mut value) = HeaderValue::try_from(value) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        };
        add(AUTHORIZATION, format!("Bearer {token}"));
        if hub == Hub::ModelScope {
            add(COOKIE, format!("m_session_id={token}"));
        }
    }

    /// Names what the hub means by its refusal.
    async fn refused(&self, endpoint: &Endpoint, is_home: bool, response: Response) -> Failure {
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

    /// Reads JSON, with as many tries as it takes; and the address of the next page, where there is one.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        url: &Url,
    ) -> Result<(T, Option<Url>), HubError> {
        let mut tries = Tries::new(LISTING_TRIES, self.settings.first_pause);
        loop {
            match self.one_json(endpoint, url).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.failed(failure).await?,
            }
        }
    }

    async fn one_json<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        url: &Url,
    ) -> Result<(T, Option<Url>), Failure> {
        let response = self.open(endpoint, url, None).await?;
        let next = next_page(response.headers(), url);
        let broken = |problem: String| HubError::Network {
            what: shown(url),
            problem,
        };
        let body = read(response, MOST_LISTING).await.map_err(broken)?;
        let parsed = serde_json::from_slice(&body).map_err(|error| {
            let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
            broken(match start {
                Some(b'<') => "it answers with a page where a list was asked for: is there a login page or a proxy between?".into(),
                _ => format!("it answers with what is no list of files: {error}"),
            })
        })?;
        Ok((parsed, next))
    }
}

/// Reads a body of at most so many bytes.
async fn read(response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| causes(&error))?;
        if body.len() + piece.len() > most {
            return Err(format!("it answers with more than {most} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The tries that are left: a budget without progress, with pauses that grow.
pub(crate) struct Tries {
    all: usize,
    left: usize,
    pause: Duration,
    first: Duration,
}

impl Tries {
    pub(crate) fn new(all: usize, first: Duration) -> Self {
        Self {
            all,
            left: all,
            pause: first,
            first,
        }
    }

    /// Forgets failures, since something came.
    pub(crate) fn progressed(&mut self) {
        *self = Self::new(self.all, self.first);
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure, where no try may help, or none is left.
    pub(crate) async fn failed(&mut self, failure: Failure) -> Result<(), HubError> {
        let Failure { error, wait } = failure;
        self.left -= 1;
        if !error.may_pass() || self.left == 0 {
            return Err(error);
        }
        let pause = match wait {
            Some(wait) => wait.min(MOST_ASKED).max(self.pause),
            None => self.pause,
        };
        if pause >= Duration::from_secs(5) {
            tracing::warn!("{error}: trying again in {} s", pause.as_secs());
        } else {
            tracing::debug!("{error}: trying again");
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
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

/// The next page of a listing.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links
        .split(',')
        .find(|link| link.contains(r#"rel="next""#))?;
    let address = link.split_once('<')?.1.split_once('>')?.0;
    url.join(address).ok()
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

/// An address for messages: signed ones have secrets behind the question mark.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // An address that can hold none has none.
    _ = url.set_username("");
    _ = url.set_password(None);
    url.to_string()
}

/// An error with all that it was caused by.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "no byte came in time".to_owned(),
        error if error.is_connect() => "no connection".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn signed_addresses_are_shown_without_their_signature() {
        let url = Url::parse("https://cdn.example/a/b?Signature=secret").unwrap();
        assert_eq!(shown(&url), "https://cdn.example/a/b");
    }
}
