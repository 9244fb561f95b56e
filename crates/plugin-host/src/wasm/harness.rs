//! A plugin outside the gateway: for its author's tests and measurements, in the real host.

mod describe;
mod measure;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_config::{InstanceConfig, PluginConfig};
use embedgate_metrics::Metrics;
use embedgate_request::{EmbedRequest, Hook, Identity, LimitConfig, Limits, Timings};
use serde_json::{Value, json};

use self::describe::{describe, describe_request, failed, pairs, refused};
pub use self::measure::LoadMeasurement;
use super::{
    authenticate::{Authenticator, Verdict, remembered::Remembered},
    clock::Clock,
    engine::GuestEngine,
    failure::Failure,
    guest::Guest,
    kv::Store,
    load::{Loader, PluginResources},
    preprocess::{self, Call, Change},
};
pub use super::{engine::ticker::TICK, guest::Cost};
use crate::interface::{Headers, INIT_TIMEOUT, RequestHead};

/// A loaded plugin, with a clock that can be set.
pub struct Harness {
    guest: Guest,
    headers: Vec<String>,
    limits: Limits,
    clock: Arc<AtomicU64>,
    id: Arc<str>,
    remembered: Remembered,
    timings: Timings,
    /// The time that loading took.
    pub load_time: Duration,
    /// The notes on the plugin's configuration.
    pub notes: Vec<String>,
}

/// The head of a request that no client sent.
#[derive(Clone, Debug, Default)]
pub struct TestHead {
    /// Such as `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Still encoded.
    pub query: Option<String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The other end of the connection.
    pub client_ip: Option<IpAddr>,
}

impl Headers for TestHead {
    fn each<'a>(&'a self, name: &str, found: &mut dyn FnMut(&'a [u8])) {
        for (_, value) in self.headers.iter().filter(|(known, _)| known == name) {
            found(value.as_bytes());
        }
    }
}

impl Harness {
    /// Loads a plugin. The names of `limits` are those that its principals may have.
    ///
    /// # Errors
    /// Whatever keeps it from being loaded.
    pub fn load(config: &PluginConfig, limits: &[String], unix_ms: u64) -> anyhow::Result<Self> {
        let started = Instant::now();
        let clock = Arc::new(AtomicU64::new(unix_ms));
        let loader = Loader {
            engine: Arc::new(GuestEngine::new()?),
            aot: None,
            max_body: 32 << 20,
            clock: Clock::Set(Arc::clone(&clock)),
            init_timeout: INIT_TIMEOUT,
        };
        let resources = PluginResources {
            kv: config.grants.kv.map(|kv| Arc::new(Store::new(kv))),
            metrics: Metrics::new().plugin("under-test"),
        };
        let loaded = loader.load("under-test", config, &resources)?;
        let limit = LimitConfig {
            requests_per_minute: Some(NonZeroU32::MAX),
            tokens_per_minute: None,
        };
        let limits = limits.iter().map(|name| (name.clone(), limit)).collect();
        Ok(Self {
            guest: loaded.guest,
            headers: config.headers.clone(),
            limits: Limits::new(&limits, None),
            clock,
            id: "test".into(),
            remembered: Remembered::default(),
            load_time: started.elapsed(),
            timings: Timings::default(),
            notes: loaded.notes,
        })
    }

    /// Sets the clock that the plugin sees.
    pub fn set_clock(&self, unix_ms: u64) {
        self.clock.store(unix_ms, Ordering::Relaxed);
    }

    /// The hooks that it has.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> {
        self.guest.exports.hooks()
    }

    /// Asks who sends a request. Nothing is remembered from call to call.
    pub async fn authenticate(&self, head: &TestHead) -> (Value, Cost) {
        let (verdict, cost) = self.ask(head).await;
        let verdict = match verdict {
            Ok(Verdict::Principal(identity)) => json!({"principal": describe(&identity)}),
            Ok(Verdict::Unknown) => json!({"unknown": true}),
            Ok(Verdict::Refused(error)) => refused(&error),
            Err(failure) => failed(&failure),
        };
        (verdict, cost)
    }

    async fn ask(&self, head: &TestHead) -> (Result<Verdict, Failure>, Cost) {
        self.authenticator(None).ask(self.head(head)).await
    }

    fn authenticator<'a>(&'a self, remembered: Option<&'a Remembered>) -> Authenticator<'a> {
        Authenticator {
            guest: &self.guest,
            headers: &self.headers,
            remembered,
            limits: &self.limits,
        }
    }

    fn head<'a>(&'a self, head: &'a TestHead) -> RequestHead<'a> {
        RequestHead {
            id: &self.id,
            method: &head.method,
            path: &head.path,
            query: head.query.as_deref(),
            headers: head,
            client_ip: head.client_ip,
            deadline: far(),
            timings: &self.timings,
        }
    }

    /// Asks who sends a request, and returns no more than what a measurement needs.
    pub async fn time_authenticate(&self, head: &TestHead) -> (Option<String>, Cost) {
        let (verdict, cost) = self.ask(head).await;
        (verdict.err().map(|failure| failure.to_string()), cost)
    }

    /// Measures authentication as [`Harness::time_authenticate`] does, but a principal may be remembered from the call
    /// before.
    pub async fn time_remembered(&self, head: &TestHead) -> (Option<String>, Cost) {
        let started = Instant::now();
        let authenticator = self.authenticator(Some(&self.remembered));
        let (verdict, cost) = authenticator.ask(self.head(head)).await;
        let time = started.elapsed();
        let failed = verdict.err().map(|failure| failure.to_string());
        let peak_memory = cost.peak_memory;
        (failed, Cost { time, peak_memory })
    }

    /// Asks the preprocessor to change a request, and returns no more than a measurement needs.
    pub async fn time_preprocess(&self, request: &mut EmbedRequest) -> (Option<String>, Cost) {
        let asked = preprocess::preprocess(&self.guest, self.call(None), request);
        let (change, cost) = asked.await;
        (change.err().map(|failure| failure.to_string()), cost)
    }

    /// Lets it change a request.
    pub async fn preprocess(
        &self,
        request: &mut EmbedRequest,
        caller: Option<&Identity>,
    ) -> (Value, Cost) {
        let asked = preprocess::preprocess(&self.guest, self.call(caller), request);
        let (change, cost) = asked.await;
        let verdict = match change {
            Ok(Change::Done(headers)) => {
                json!({"request": describe_request(request), "headers": pairs(&headers)})
            }
            Ok(Change::Refused(error)) => refused(&error),
            Err(failure) => failed(&failure),
        };
        (verdict, cost)
    }

    fn call<'a>(&'a self, caller: Option<&'a Identity>) -> Call<'a> {
        Call {
            id: &self.id,
            deadline: far(),
            caller,
        }
    }

    /// Returns true when each call has an instance of its own.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.guest.lifetime == InstanceConfig::Fresh
    }
}

/// A test has all the time that the plugin's own timeout leaves it.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
