//! Requests to a hub: its token stays with it, and redirects are followed by hand.

mod json;
mod refusal;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use reqwest::{
    Response, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, LOCATION, RANGE},
    redirect::Policy,
};

use crate::{
    Hub,
    endpoint::{Endpoint, shown},
    error::{HubError, causes},
    settings::Settings,
    tries::{Failure, MOST_ASKED},
};

/// A connection that is not there after so long will not be.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A hub sends one to a server of files, and mirrors one more.
const MOST_REDIRECTS: usize = 5;

/// Requests to all hubs.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) settings: Settings,
    /// The time until which an endpoint wants to be left alone, by its address.
    held: Mutex<HashMap<String, tokio::time::Instant>>,
}

impl Client {
    /// Makes the client.
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
