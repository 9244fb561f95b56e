//! Requests of plugins to other servers: only to URLs that were granted, to addresses that are not private.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Once},
    time::Duration,
};

use anyhow::Context;
use embedgate_config::{HttpConfig, allowed_url};
use reqwest::{
    Client, Method,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use url::{Host, Url};

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

    fn is_allowed(&self, url: &Url) -> bool {
        // The parser has taken dots out of the path, but servers may read these in their own way.
        let path = url.path().to_ascii_lowercase();
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && !["%2e", "%2f", "%5c", "%25", "%3b", "\\", ";"]
                .iter()
                .any(|odd| path.contains(odd));
        let is_public = match url.host() {
            Some(Host::Ipv4(address)) => is_public(address.into()),
            Some(Host::Ipv6(address)) => is_public(address.into()),
            // Names are looked at when they are resolved.
            Some(Host::Domain(_)) => true,
            None => false,
        };
        is_plain
            && (is_public || self.config.allow_private)
            && self.allowed.iter().any(|allowed| covers(allowed, url))
    }
}

/// Returns true when the URL has the origin of the allowed one, and its path or one below.
fn covers(allowed: &Url, url: &Url) -> bool {
    let base = allowed.path().trim_end_matches('/');
    let below = url.path().strip_prefix(base);
    allowed.origin() == url.origin()
        && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
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

/// Resolves names, and keeps addresses of this machine and its network to itself. The connection is made to what comes
/// from here, so a name cannot have another address by then.
struct PublicNames {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error("the name has no address")]
    Unknown,
    #[error("the name has private addresses only")]
    Private,
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Unresolved::Unknown)?.collect();
            if found.is_empty() {
                return Err(Unresolved::Unknown.into());
            }
            let usable: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if usable.is_empty() {
                return Err(Unresolved::Private.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Returns true when an address belongs to the internet: not to this machine, its networks, or the ranges that stand
/// for either.
///
/// Source: the registries of special-purpose addresses of IANA.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b & 0xfe) == 18))
        }
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public(v4),
            // Everything that is handed out lies in 2000::/3; 2001:db8::/32 is for documentation.
            None => {
                let [a, b, ..] = v6.segments();
                // Teredo, 2001::/32, leads to any IPv4 address.
                (a & 0xe000) == 0x2000 && (a, b) != (0x2001, 0x0db8) && (a, b) != (0x2001, 0)
            }
        },
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded_v4(v6: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, _, _, _, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(IpAddr::from([a, b, c, d]))
    };
    match (a, b) {
        _ if v6.to_ipv4_mapped().is_some() => v4(g, h),
        // NAT64 and 6to4.
        (0x64, 0xff9b) if c == 0 => v4(g, h),
        (0x2002, _) => v4(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(allow: &[&str], allow_private: bool) -> Outbound {
        Outbound::new(&HttpConfig {
            allow: allow.iter().map(|url| (*url).to_owned()).collect(),
            allow_private,
            ..HttpConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn only_what_was_granted_is_allowed() {
        let outbound = outbound(&["https://idp.example.com/introspect"], false);
        let allows = |url: &str| outbound.is_allowed(&Url::parse(url).unwrap());
        for url in [
            "https://idp.example.com/introspect",
            "https://idp.example.com:443/introspect/token?x=1",
            "https://IDP.example.com/a/../introspect",
        ] {
            assert!(allows(url), "{url}");
        }
        for url in [
            "http://idp.example.com/introspect",
            "https://idp.example.com/",
            "https://idp.example.com/introspection",
            "https://idp.example.com/introspect/../admin",
            "https://idp.example.com/introspect/%2e%2e/admin",
            "https://idp.example.com/introspect/%252e%252e/admin",
            "https://idp.example.com/introspect/..;/admin",
            "https://idp.example.com:8443/introspect",
            "https://idp.example.com@evil.example/introspect",
            "https://user:pw@idp.example.com/introspect",
            "https://evil.example/introspect",
            "file:///introspect",
        ] {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn private_addresses_need_their_own_grant() {
        let hosts = [
            "127.0.0.1",
            "169.254.169.254",
            "10.1.2.3",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[64:ff9b:1::808:808]",
            "2130706433",
            "0x7f.1",
        ];
        for host in hosts {
            let url = format!("http://{host}/");
            let parsed = Url::parse(&url).unwrap();
            assert!(!outbound(&[&url], false).is_allowed(&parsed), "{host}");
            assert!(outbound(&[&url], true).is_allowed(&parsed), "{host}");
        }
        for address in ["8.8.8.8", "2606:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
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
