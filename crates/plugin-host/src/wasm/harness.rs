//! A plugin outside the gateway: for its author's tests and measurements, in the real host.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_config::InstanceConfig;
use embedgate_metrics::Metrics;
use embedgate_request::{
    EmbedRequest, Error, ErrorKind, Hook, Identity, Input, InputKind, LimitConfig, Limits,
};
use serde_json::{Value, json};

use super::{
    PluginConfig,
    authenticate::{self, Remembered, Verdict},
    engine::GuestEngine,
    guest::{Failure, Guest},
    kv::Store,
    load::{Kept, Loader},
    preprocess::{self, Change},
    state::Clock,
};
pub use super::{engine::TICK, guest::Cost};
use crate::words::{Head, Headers, INIT_TIMEOUT};

/// A loaded plugin, with a clock that can be set.
pub struct Harness {
    guest: Guest,
    headers: Vec<String>,
    limits: Limits,
    clock: Arc<AtomicU64>,
    id: Arc<str>,
    remembered: Remembered,
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
        let kept = Kept {
            kv: config.grants.kv.map(|kv| Arc::new(Store::new(kv))),
            metrics: Metrics::new().plugin("under-test"),
        };
        let loaded = loader.load("under-test", config, &kept)?;
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
            notes: loaded.notes,
        })
    }

    /// Sets the clock that the plugin sees.
    pub fn set_clock(&self, unix_ms: u64) {
        self.clock.store(unix_ms, Ordering::Relaxed);
    }

    /// The hooks that it has.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> {
        self.guest.hooks()
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
        let head = self.head(head);
        authenticate::authenticate(&self.guest, &self.headers, None, &self.limits, head).await
    }

    fn head<'a>(&'a self, head: &'a TestHead) -> Head<'a> {
        Head {
            id: &self.id,
            method: &head.method,
            path: &head.path,
            query: head.query.as_deref(),
            headers: head,
            client_ip: head.client_ip,
            deadline: far(),
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
        let head = self.head(head);
        let (guest, known) = (&self.guest, Some(&self.remembered));
        let asked = authenticate::authenticate(guest, &self.headers, known, &self.limits, head);
        let (verdict, cost) = asked.await;
        let time = started.elapsed();
        let failed = verdict.err().map(|failure| failure.to_string());
        let peak_memory = cost.peak_memory;
        (failed, Cost { time, peak_memory })
    }

    /// Asks the preprocessor to change a request, and returns no more than a measurement needs.
    pub async fn time_preprocess(&self, request: &mut EmbedRequest) -> (Option<String>, Cost) {
        let asked = preprocess::preprocess(&self.guest, &self.id, far(), None, request);
        let (change, cost) = asked.await;
        (change.err().map(|failure| failure.to_string()), cost)
    }

    /// Lets it change a request.
    pub async fn preprocess(
        &self,
        request: &mut EmbedRequest,
        caller: Option<&Identity>,
    ) -> (Value, Cost) {
        let asked = preprocess::preprocess(&self.guest, &self.id, far(), caller, request);
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

    /// Returns true when each call has an instance of its own.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.guest.lifetime == InstanceConfig::Fresh
    }
}

/// No call takes as long as a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// A test has all the time that the plugin's own timeout leaves it.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn describe(identity: &Identity) -> Value {
    let models = identity.allowed_models.as_ref();
    json!({
        "subject": &*identity.subject,
        "tenant": identity.tenant,
        "scopes": identity.scopes,
        "models": models.map(|models| models.iter().map(|model| &model.0).collect::<Vec<_>>()),
        "lane": identity.lane.map(embedgate_request::Lane::name),
        "attributes": pairs(&identity.attributes),
    })
}

fn describe_request(request: &EmbedRequest) -> Value {
    let input = |input: &Input| match input {
        Input::Text(text) => json!(text),
        Input::Tokens(ids) => json!(ids),
    };
    json!({
        "model": request.model,
        "inputs": request.inputs.iter().map(input).collect::<Vec<_>>(),
        "dimensions": request.dimensions,
        "kind": match request.kind {
            InputKind::Unspecified => "unspecified",
            InputKind::Query => "query",
            InputKind::Document => "document",
        },
    })
}

fn refused(error: &Error) -> Value {
    let status = match error.kind {
        ErrorKind::Refused(status) => status,
        _ => 400,
    };
    json!({"rejection": {
        "status": status,
        "code": error.code,
        "message": error.to_string(),
        "headers": pairs(error.headers()),
    }})
}

fn failed(failure: &Failure) -> Value {
    let causes: Vec<String> =
        std::iter::successors(Some(failure as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect();
    json!({"failure": failure.kind(), "cause": causes.join(": ")})
}

fn pairs(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Calls that many threads make for a while, each for itself.
pub struct Load {
    /// Time of each call, in nanoseconds.
    pub calls: hdrhistogram::Histogram<u64>,
    /// Calls a second, of all threads together.
    pub per_second: f64,
    /// The delay of timers of the same threads, in nanoseconds. Calls that end before the timers are due let none run.
    pub late: hdrhistogram::Histogram<u64>,
    /// The most memory that an instance had, in bytes.
    pub peak_memory: usize,
    /// The first verdict that was none, if any.
    pub failure: Option<String>,
}

impl Harness {
    /// Makes one call again and again on so many threads for so long.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn measure<F>(
        &self,
        n_threads: usize,
        time: Duration,
        call: impl Fn() -> F + Sync,
    ) -> anyhow::Result<Load>
    where
        F: Future<Output = (Option<String>, Cost)>,
    {
        let histogram = || hdrhistogram::Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3);
        let all = Mutex::new(Load {
            calls: histogram()?,
            per_second: 0.0,
            late: histogram()?,
            peak_memory: 0,
            failure: None,
        });
        let started = Instant::now();
        let (to_all, call) = (&all, &call);
        std::thread::scope(|scope| -> anyhow::Result<()> {
            for _ in 0..n_threads {
                let (mut calls, mut late) = (histogram()?, histogram()?);
                std::thread::Builder::new().spawn_scoped(scope, move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    let runtime = runtime.expect("a runtime without threads needs a poll alone");
                    let (mut peak, mut failure) = (0, None);
                    let calling = async {
                        while started.elapsed() < time {
                            let (failed, cost) = call().await;
                            record(&mut calls, cost.time);
                            peak = peak.max(cost.peak_memory);
                            failure = failure.take().or(failed);
                        }
                    };
                    let timers = async {
                        loop {
                            let due = tokio::time::Instant::now() + TICK;
                            tokio::time::sleep_until(due).await;
                            record(&mut late, due.elapsed());
                        }
                    };
                    runtime.block_on(async {
                        tokio::select! {
                            biased;
                            () = calling => {}
                            () = timers => {}
                        }
                    });
                    let mut all = to_all.lock().unwrap_or_else(PoisonError::into_inner);
                    let same = "all have the same precision";
                    all.calls.add(&calls).expect(same);
                    all.late.add(&late).expect(same);
                    all.peak_memory = all.peak_memory.max(peak);
                    all.failure = all.failure.take().or(failure);
                })?;
            }
            Ok(())
        })?;
        let elapsed = started.elapsed().as_secs_f64();
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.per_second = all.calls.len() as f64 / elapsed;
        Ok(all)
    }
}

fn record(histogram: &mut hdrhistogram::Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}
