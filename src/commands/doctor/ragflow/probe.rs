//! One request of a provider, as `RAGFlow` sends it.

use std::time::{Duration, Instant};

use embedgate_tools::bench::{Connection, Target};
use hyper::Uri;
use serde_json::Value;

/// Adding a model calls it once, within this time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request of one of `RAGFlow`'s providers, and what it makes of the answer.
pub(super) struct Probe {
    /// The providers that send it.
    pub(super) providers: &'static str,
    pub(super) path: &'static str,
    pub(super) key: Key,
    pub(super) body: Value,
    /// The reader of the answer: it returns the finding, or the problem.
    pub(super) read: fn(&Value) -> Result<String, String>,
}

/// The key that a provider sends.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// The one typed into its dialog.
    Typed,
    /// One of its own, whatever was typed.
    Own(&'static str),
    Never,
}

/// Sends one request, on a connection of its own as `RAGFlow` does.
pub(super) async fn ask(probe: &Probe, url: &Target, key: Option<&str>) -> Result<String, String> {
    let mut parts = url.url.clone().into_parts();
    parts.path_and_query = probe.path.parse().ok();
    let target = Target {
        name: url.name.clone(),
        url: Uri::from_parts(parts).map_err(|e| e.to_string())?,
    };
    let key = match probe.key {
        // The dialog wants some word where no key is asked for.
        Key::Typed => Some(key.unwrap_or("empty")),
        Key::Own(own) => Some(own),
        Key::Never => None,
    };
    let started = Instant::now();
    let body = probe.body.to_string().into();
    let reply = Connection::new(&target, key, None, TIMEOUT)
        .post(body)
        .await;
    let reply = reply.map_err(|e| format!("{e:#}"))?;
    let took = started.elapsed().as_millis();
    let text = String::from_utf8_lossy(&reply.bytes);
    if reply.status != 200 {
        let shown: String = text.chars().take(300).collect();
        let hint = match reply.status {
            401 | 403 => probe.way_in(),
            404 => "; is there another server at this URL, or no such model?",
            _ => "",
        };
        return Err(format!("{} {shown}{hint}", reply.status));
    }
    let answer: Value =
        serde_json::from_str(&text).map_err(|e| format!("the answer is no JSON: {e}"))?;
    let found = (probe.read)(&answer)?;
    Ok(format!("{found}, {took} ms"))
}

impl Probe {
    /// Returns the advice for a probe that the gateway does not let in.
    fn way_in(&self) -> &'static str {
        match (self.key, self.path) {
            (Key::Typed, _) => "; give the key with --key, or in EMBEDGATE_KEY",
            (Key::Own(_), _) => {
                "; this provider sends a key of its own: set auth.open_routes = [\"embeddings\"]"
            }
            (Key::Never, "/rerank") => {
                "; this provider never sends a key: set auth.open_routes = [\"tei\", \"rerank\"]"
            }
            (Key::Never, _) => {
                "; this provider never sends a key: set auth.open_routes = [\"tei\"]"
            }
        }
    }
}
