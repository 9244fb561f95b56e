//! Requests of plugins to other servers: only to URLs that were granted, to addresses that are not private.

mod addresses;
mod allowed;

use std::{
    iter,
    sync::{Arc, Once},
    time::Duration,
};

use anyhow::Context;
use embedgate_config::{HttpConfig, allowed_url};
use reqwest::{
    Client, Method,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use url::Url;

use self::addresses::{PublicNames, Unresolved};

/// The methods that plugins may send; the others concern the connection.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_REQUEST_BYTES: usize = 1 << 20;
const MOST_RESPONSE_HEADERS: usize = 64 << 10;

/// The reasons why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutboundError {
    Denied,
    Invalid,
    Dns,
    Connect,
    Timeout,
    TooLarge,
    Protocol,
}

/// A request of a plugin.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) timeout: Duration,
}

/// The answer of the other server.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// The client of one plugin.
pub(super) struct Outbound {
    config: HttpConfig,
    allowed: Vec<Url>,
    client: Client,
}

impl Outbound {
    /// Makes the client of a grant.
    pub(super) fn new(config: &HttpConfig) -> anyhow::Result<Self> {
        static PROVIDER: Once = Once::new();
        // An error means that there is one already.
        PROVIDER.call_once(|| {
            drop(rustls::crypto::ring::default_provider().install_default());
        });
        let allowed = config.allow.iter().map(|url| allowed_url(url));
        let allowed = allowed
            .collect::<Result<_, _>>()
            .map_err(|message| anyhow::anyhow!("grants.http.allow: {message}"))?;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            // A proxy of the environment would resolve names where nobody checks them.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(Arc::new(PublicNames {
                allow_private: config.allow_private,
            }))
            .user_agent(concat!("embedgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            config: config.clone(),
            allowed,
            client,
        })
    }

    /// Requests that a call may make.
    pub(super) fn max_requests(&self) -> u32 {
        self.config.max_requests
    }

    /// Sends a request, within its timeout.
    pub(super) async fn send(&self, request: Request) -> Result<Response, OutboundError> {
        let timeout = request.timeout;
        let answered = tokio::time::timeout(timeout, self.send_in_time(request));
        answered.await.map_err(|_| OutboundError::Timeout)?
    }

    async fn send_in_time(&self, request: Request) -> Result<Response, OutboundError> {
        let url = Url::parse(&request.url).map_err(|_| OutboundError::Invalid)?;
        if !self.is_allowed(&url) {
            return Err(OutboundError::Denied);
        }
        if request.body.len() > MOST_REQUEST_BYTES {
            return Err(OutboundError::TooLarge);
        }
        let method = Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|_| OutboundError::Invalid)?;
        if !METHODS.contains(&method) {
            return Err(OutboundError::Invalid);
        }
        let mut response = self
            .client
            .request(method, url)
            .headers(headers(&request.headers)?)
            .body(request.body)
            .send()
            .await
            .map_err(|error| kind(&error))?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| kind(&error))? {
            if body.len() + piece.len() > self.config.max_response.bytes() {
                return Err(OutboundError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        let headers = response.headers().iter().filter_map(|(name, value)| {
            // What is not text, a plugin cannot be told.
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        let headers: Vec<_> = headers.collect();
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > MOST_RESPONSE_HEADERS {
            return Err(OutboundError::TooLarge);
        }
        Ok(Response {
            status: response.status().as_u16(),
            headers,
            body,
        })
    }
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, OutboundError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| OutboundError::Invalid)?;
        let value = HeaderValue::from_str(value).map_err(|_| OutboundError::Invalid)?;
        // These belong to the connection: another host or length would be a way around the grant.
        let is_ours = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
        ];
        if is_ours.contains(&name.as_str()) {
            return Err(OutboundError::Invalid);
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn kind(error: &reqwest::Error) -> OutboundError {
    let mut sources =
        iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        });
    if let Some(unresolved) = sources.find_map(|error| error.downcast_ref::<Unresolved>()) {
        return match unresolved {
            Unresolved::Private => OutboundError::Denied,
            Unresolved::Unknown => OutboundError::Dns,
        };
    }
    match error {
        error if error.is_timeout() => OutboundError::Timeout,
        error if error.is_connect() => OutboundError::Connect,
        error if error.is_builder() => OutboundError::Invalid,
        _ => OutboundError::Protocol,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn outbound(allow: &[&str], allow_private: bool) -> Outbound {
        Outbound::new(&HttpConfig {
            allow: allow.iter().map(|url| (*url).to_owned()).collect(),
            allow_private,
            ..HttpConfig::default()
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_when_it_is_resolved() {
        let request = || Request {
            method: "GET".into(),
            url: "http://localhost:1/".into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: Duration::from_secs(5),
        };
        let private = outbound(&["http://localhost:1/"], false);
        assert_eq!(
            private.send(request()).await.err(),
            Some(OutboundError::Denied)
        );
        let granted = outbound(&["http://localhost:1/"], true);
        assert_eq!(
            granted.send(request()).await.err(),
            Some(OutboundError::Connect)
        );
    }

    #[test]
    fn headers_of_the_connection_are_refused() {
        for (name, value) in [
            ("Host", "evil"),
            ("content-length", "0"),
            ("a\r\nb", "c"),
            ("a", "b\r\nc"),
        ] {
            let given = [(name.to_owned(), value.to_owned())];
            assert_eq!(
                headers(&given).err(),
                Some(OutboundError::Invalid),
                "{name}"
            );
        }
    }
}
