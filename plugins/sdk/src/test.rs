//! A host in memory, for tests of guests with plain `cargo test`. Not in components.
//!
//! ```
//! # use embedgate_plugin::{Authenticator, Principal, Rejection, RequestHead};
//! # struct Plugin;
//! # impl Authenticator for Plugin {
//! #     fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
//! #         Ok(head.bearer().map(Principal::new))
//! #     }
//! # }
//! use embedgate_plugin::test::{self, TestHost};
//!
//! let host = TestHost::new().with_secret("PEPPER", "salt");
//! let answer = host.authenticate::<Plugin>(test::head().with_header("authorization", "Bearer me"));
//! assert_eq!(answer, Ok(Some(Principal::new("me"))));
//! assert!(host.log_lines().is_empty());
//! ```
//!
//! A host belongs to its thread, and so to its test. As in the gateway, nothing is granted that a test does not grant,
//! `init` may call less than a request, and an answer that the gateway would not take is a failure: here, of the test.

use std::cell::RefCell;
use std::time::Duration;

use crate::http::{HttpError, Request, Response};
use crate::log::Level;
use crate::{
    Authenticator, EmbedRequest, Header, InputKind, Inputs, Lifecycle, Observer, Outcome,
    Preprocessor, Principal, Rejection, RequestHead, Summary,
};

mod check;
pub(crate) mod imports;
mod jwt;
mod kv;

pub use jwt::Issuer;
pub use serde_json::{Value, json};

/// The host of this thread, until it is dropped.
#[derive(Debug)]
pub struct TestHost(());

/// A line that the plugin logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
}

/// A value that the plugin added to or observed in a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels, in order.
    pub labels: Vec<(String, String)>,
    /// What was added or observed.
    pub value: f64,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

type HttpServer = Box<dyn FnMut(&Request) -> Result<Response, HttpError>>;

struct State {
    in_init: bool,
    now_ms: u64,
    n_random: u64,
    secrets: Vec<(String, String)>,
    crypto: Option<Vec<Issuer>>,
    kv: Option<kv::Store>,
    metrics: Vec<String>,
    http: Option<HttpServer>,
    lines: Vec<Line>,
    samples: Vec<Sample>,
}

/// Friday the 15th of January 2027, 08:00 UTC.
const START_MS: u64 = 1_800_000_000_000;

impl TestHost {
    /// Makes the host of this thread: its clock stands at 2027-01-15 08:00 UTC, and nothing is granted.
    #[expect(
        clippy::new_without_default,
        reason = "it replaces the thread's host; that is no default value"
    )]
    pub fn new() -> Self {
        let state = State {
            in_init: false,
            now_ms: START_MS,
            n_random: 0,
            secrets: Vec::new(),
            crypto: None,
            kv: None,
            metrics: Vec::new(),
            http: None,
            lines: Vec::new(),
            samples: Vec::new(),
        };
        STATE.with_borrow_mut(|slot| *slot = Some(state));
        Self(())
    }

    /// Grants a secret.
    pub fn with_secret(self, name: &str, value: &str) -> Self {
        with_state(|state| state.secrets.push((name.to_owned(), value.to_owned())));
        self
    }

    /// Grants `crypto`, without keys of issuers.
    pub fn with_crypto(self) -> Self {
        with_state(|state| _ = state.crypto.get_or_insert_default());
        self
    }

    /// Grants `crypto` with the key of an issuer.
    pub fn with_issuer(self, issuer: Issuer) -> Self {
        with_state(|state| state.crypto.get_or_insert_default().push(issuer));
        self
    }

    /// Grants `kv`, of so many keys and bytes.
    pub fn with_kv(self, max_keys: usize, max_bytes: usize) -> Self {
        with_state(|state| state.kv = Some(kv::Store::new(max_keys, max_bytes)));
        self
    }

    /// Grants metrics.
    pub fn with_metrics(self, names: &[&str]) -> Self {
        with_state(|state| state.metrics = names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Grants `http`, answered by a function.
    pub fn with_http(
        self,
        server: impl FnMut(&Request) -> Result<Response, HttpError> + 'static,
    ) -> Self {
        with_state(|state| state.http = Some(Box::new(server)));
        self
    }

    /// Sets the clock, in milliseconds since 1970.
    pub fn set_unix_ms(&self, now_ms: u64) {
        with_state(|state| state.now_ms = now_ms);
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let ms =
            u64::try_from(duration.as_millis()).expect("tests end in less than 500 million years");
        with_state(|state| state.now_ms += ms);
    }

    /// Returns the lines that the plugin logged so far.
    pub fn log_lines(&self) -> Vec<Line> {
        with_state(|state| state.lines.clone())
    }

    /// Returns what the plugin added to and observed in its metrics so far.
    pub fn samples(&self) -> Vec<Sample> {
        with_state(|state| state.samples.clone())
    }

    /// Calls [`Lifecycle::init`] with a settings table.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn init<P: Lifecycle>(&self, settings: &Value) -> Result<(), String> {
        with_state(|state| state.in_init = true);
        let answer = P::init(&settings.to_string());
        with_state(|state| state.in_init = false);
        answer
    }

    /// Calls [`Authenticator::authenticate`].
    ///
    /// # Errors
    /// The plugin's own.
    ///
    /// # Panics
    /// The gateway would not take the answer.
    pub fn authenticate<P: Authenticator>(
        &self,
        head: RequestHead,
    ) -> Result<Option<Principal>, Rejection> {
        let answer = P::authenticate(head);
        match &answer {
            Ok(None) => {}
            Ok(Some(principal)) => check::principal(principal),
            Err(rejection) => check::rejection(rejection),
        }
        answer
    }

    /// Calls [`Preprocessor::preprocess`].
    ///
    /// # Errors
    /// The plugin's own.
    ///
    /// # Panics
    /// The gateway would not take the answer.
    pub fn preprocess<P: Preprocessor>(
        &self,
        request: EmbedRequest,
        caller: Option<Principal>,
    ) -> Result<Outcome, Rejection> {
        let inputs = request.inputs.clone();
        let answer = P::preprocess(request, caller);
        match &answer {
            Ok(Outcome::Unchanged) => {}
            Ok(Outcome::Edited(edits)) => check::edits(edits, &inputs),
            Err(rejection) => check::rejection(rejection),
        }
        answer
    }

    /// Calls [`Observer::observe`].
    pub fn observe<P: Observer>(&self, batch: Vec<Summary>) {
        P::observe(batch);
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        STATE.with_borrow_mut(|slot| *slot = None);
    }
}

/// Runs `f` on the host of this thread. `f` calls no plugin, which would call the host again.
fn with_state<T>(f: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(|slot| {
        f(slot
            .as_mut()
            .expect("no host: make one with TestHost::new()"))
    })
}

/// Makes the head of `POST /v1/embeddings`, without headers.
pub fn head() -> RequestHead {
    RequestHead {
        id: "req-1".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/embeddings".to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        client_ip: "192.0.2.1".to_owned(),
    }
}

/// What tests add to a head.
impl RequestHead {
    /// Adds a header; names are lower-case.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Header {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// Adds a parameter of the query.
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        self.query.push(Header {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }
}

/// Makes a request for the default model with these texts.
pub fn texts(texts: &[&str]) -> EmbedRequest {
    request(Inputs::Texts(
        texts.iter().map(|&text| text.to_owned()).collect(),
    ))
}

/// Makes a request for the default model with these token ids.
pub fn tokens(inputs: &[&[u32]]) -> EmbedRequest {
    request(Inputs::Tokens(
        inputs.iter().map(|&ids| ids.to_vec()).collect(),
    ))
}

fn request(inputs: Inputs) -> EmbedRequest {
    EmbedRequest {
        id: "req-1".to_owned(),
        model: String::new(),
        inputs,
        dimensions: None,
        kind: InputKind::Unspecified,
        user: None,
        extra: Vec::new(),
    }
}

/// What tests change in a request.
impl EmbedRequest {
    /// Sets the model.
    pub fn with_model(mut self, model: &str) -> Self {
        self.model = model.to_owned();
        self
    }

    /// Sets what the inputs are.
    pub fn with_kind(mut self, kind: InputKind) -> Self {
        self.kind = kind;
        self
    }
}

#[cfg(test)]
mod tests;
