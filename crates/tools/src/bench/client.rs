//! A lean HTTP/1.1 client: one connection after another, kept alive, nothing parsed but what is counted.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, anyhow};
use embedgate_request::Lane;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Uri,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A server to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the report calls it.
    pub name: String,
    /// The whole URL of its embeddings route.
    pub url: Uri,
}

impl FromStr for Target {
    type Err = String;

    /// `NAME=URL`, or the URL alone. A URL without a path means `/v1/embeddings`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains('/') => (name, url),
            _ => (text, text),
        };
        let wrong = |why: &str| {
            format!("{text:?} is no target: {why}; write it as http://127.0.0.1:9100 or NAME=URL")
        };
        let parsed: Uri = url.parse().map_err(|e| wrong(&format!("{e}")))?;
        if parsed.scheme_str() != Some("http") {
            return Err(wrong("only http:// is spoken"));
        }
        let path = match parsed.path() {
            "/" | "" => "/v1/embeddings",
            "/v1" | "/v1/" => "/v1/embeddings",
            path => path,
        };
        let authority = parsed
            .authority()
            .ok_or_else(|| wrong("it names no host"))?;
        let url = format!("http://{authority}{path}");
        Ok(Self {
            name: name.to_owned(),
            url: url.parse().map_err(|e| wrong(&format!("{e}")))?,
        })
    }
}

/// The answer of the server.
pub struct Reply {
    pub status: u16,
    pub bytes: Bytes,
}

impl Reply {
    /// Tokens as the server bills them; 0 where it does not say.
    pub(super) fn tokens(&self) -> u64 {
        let field = b"\"total_tokens\":";
        // Usage comes last in every server met so far; only the end of a large body is looked at.
        let end = &self.bytes[self.bytes.len().saturating_sub(256)..];
        let at = end.windows(field.len()).rposition(|window| window == field);
        let digits = at.map_or(&end[..0], |at| end[at + field.len()..].trim_ascii_start());
        let digits = digits.iter().take_while(|b| b.is_ascii_digit());
        digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0'))
    }
}

/// One connection, opened when it is needed.
pub struct Connection {
    target: Target,
    headers: hyper::HeaderMap,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Prepares one; it connects with the first request.
    pub fn new(target: &Target, key: Option<&str>, lane: Option<Lane>, timeout: Duration) -> Self {
        let mut headers = hyper::HeaderMap::new();
        let mut set = |name: header::HeaderName, value: &str| {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, "application/json");
        set(
            header::HOST,
            target.url.authority().map_or("", |a| a.as_str()),
        );
        if let Some(key) = key {
            set(header::AUTHORIZATION, &format!("Bearer {key}"));
        }
        if let Some(lane) = lane {
            set(
                header::HeaderName::from_static("x-embedgate-lane"),
                lane.name(),
            );
        }
        Self {
            target: target.clone(),
            headers,
            timeout,
            sender: None,
        }
    }

    /// Sends a body and reads the answer. After an error the next one gets a new connection.
    pub async fn post(&mut self, body: Bytes) -> anyhow::Result<Reply> {
        let request = Request::post(self.target.url.path()).body(Full::from(body))?;
        self.send(request).await
    }

    /// Gets what is at a path of the same server. After an error the next one gets a new connection.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Reply> {
        let request = Request::get(path).body(Full::default())?;
        self.send(request).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let reply = tokio::time::timeout(self.timeout, self.send_in_time(request)).await;
        let reply = reply.unwrap_or_else(|_| Err(anyhow!("no answer in {:?}", self.timeout)));
        if reply.is_err() {
            self.sender = None;
        }
        reply
    }

    async fn send_in_time(&mut self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        request.headers_mut().clone_from(&self.headers);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Reply { status, bytes })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let url = &self.target.url;
        let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("{} cannot be reached", self.target.name))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong is seen by whoever sends.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection of the load ended");
            }
        });
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_with_or_without_a_name() {
        let cases = [
            (
                "http://a:9100",
                "http://a:9100",
                "http://a:9100/v1/embeddings",
            ),
            ("tei=http://b/embed", "tei", "http://b/embed"),
            ("x=http://c:1/v1", "x", "http://c:1/v1/embeddings"),
        ];
        for (text, name, url) in cases {
            let target: Target = text.parse().unwrap();
            assert_eq!(
                (target.name.as_str(), target.url.to_string().as_str()),
                (name, url)
            );
        }
        for bad in ["https://a", "a:9100", "", "x="] {
            assert!(
                bad.parse::<Target>().unwrap_err().contains("NAME=URL"),
                "{bad}"
            );
        }
    }

    #[test]
    fn tokens_are_read_from_the_end_of_the_answer() {
        let tokens = |text: &str| {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            Reply { status: 200, bytes }.tokens()
        };
        assert_eq!(
            tokens(r#"{"usage":{"prompt_tokens":3,"total_tokens": 42}}"#),
            42
        );
        assert_eq!(tokens("{}"), 0);
        assert_eq!(tokens(""), 0);
    }
}
