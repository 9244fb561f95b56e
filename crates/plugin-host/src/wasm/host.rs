//! The functions that guests import: each checks the grant and the call's budget, and calls the module that does the
//! work.

use std::time::{Duration, Instant};

use embedgate_metrics::PluginMetrics;
use wasmtime::{Result, bail};

use super::{
    bindings::embedgate::plugin::{clock, crypto, http, kv, log, metrics, random, secrets, types},
    crypto::{JwtError, equal, hmac_sha256, sha256},
    kv::{KvError, Store},
    outbound::{self, OutboundError},
    state::{Phase, Shared, State, not_granted},
};

/// Bytes of randomness in one call.
const MOST_RANDOM: u32 = 4096;
/// Bytes that one call of the host hashes: a millisecond.
const MOST_HASHED: usize = 1 << 20;
/// A longer line of a guest is cut.
const MOST_LINE: usize = 2048;

impl types::Host for State {}

impl log::Host for State {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> Result<()> {
        self.host_call()?;
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if !self.may_log(message.len() + bytes) {
            self.shared.metrics.log_dropped.inc();
            return Ok(());
        }
        if !is_enabled(level) || self.phase == Phase::WarmUp {
            return Ok(());
        }
        let fields = fields
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        let line = printable(&format!("{message}{}", fields.collect::<String>()));
        let plugin = &*self.shared.name;
        let id = self.request_id.as_deref().unwrap_or_default();
        // One literal each: the level of a line is part of its place in the code.
        match level {
            log::Level::Trace => tracing::trace!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Debug => tracing::debug!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Info => tracing::info!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Warn => tracing::warn!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Error => tracing::error!(plugin, id, "plugin {plugin}: {line}"),
        }
        Ok(())
    }

    fn enabled(&mut self, level: log::Level) -> Result<bool> {
        self.host_call()?;
        Ok(is_enabled(level))
    }
}

fn is_enabled(level: log::Level) -> bool {
    match level {
        log::Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        log::Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        log::Level::Info => tracing::enabled!(tracing::Level::INFO),
        log::Level::Warn => tracing::enabled!(tracing::Level::WARN),
        log::Level::Error => tracing::enabled!(tracing::Level::ERROR),
    }
}

/// One line of an error's several, such as those of a backtrace.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    printable(&lines.join(" / "))
}

/// One line, whatever the guest writes: nobody can forge a second one.
pub(super) fn printable(text: &str) -> String {
    let characters = text.chars().take(MOST_LINE);
    characters
        .flat_map(|c| {
            let is_plain = !c.is_control();
            let plain = is_plain.then_some(c);
            let escaped = (!is_plain)
                .then(|| c.escape_default())
                .into_iter()
                .flatten();
            plain.into_iter().chain(escaped)
        })
        .collect()
}

impl clock::Host for State {
    fn unix_ms(&mut self) -> Result<u64> {
        self.host_call()?;
        self.is_impure = true;
        Ok(self.shared.clock.unix_ms())
    }

    fn monotonic_ns(&mut self) -> Result<u64> {
        self.host_call()?;
        self.is_impure = true;
        let ns = self.shared.clock.monotonic().as_nanos();
        Ok(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

impl random::Host for State {
    fn bytes(&mut self, n: u32) -> Result<Vec<u8>> {
        self.host_call()?;
        self.is_impure = true;
        if n > MOST_RANDOM {
            bail!("random.bytes gives at most {MOST_RANDOM} bytes a call, {n} were asked for");
        }
        let mut bytes = vec![0; n as usize];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl secrets::Host for State {
    fn get(&mut self, name: String) -> Result<Option<String>> {
        self.host_call()?;
        self.is_impure = true;
        if self.phase == Phase::WarmUp {
            // The snapshot must not hold what only calls may know.
            return Ok(None);
        }
        let secret = self.shared.grants.secrets.get(&name);
        Ok(secret.map(|secret| secret.expose().to_owned()))
    }
}

impl State {
    fn kv(&mut self) -> Result<(&Store, Duration)> {
        self.outer_call("kv")?;
        self.is_impure = true;
        let now = self.shared.clock.monotonic();
        match &self.shared.grants.kv {
            Some(_) if self.phase == Phase::WarmUp => Ok((&self.shared.scratch, now)),
            Some(store) => Ok((store, now)),
            None => Err(not_granted(&self.shared.name, "kv")),
        }
    }
}

impl From<KvError> for kv::KvError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Self::Full,
            KvError::TooLarge => Self::TooLarge,
            KvError::NotANumber => Self::NotANumber,
        }
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        let (store, now) = self.kv()?;
        Ok(store.get(&key, now))
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: u32,
    ) -> Result<std::result::Result<(), kv::KvError>> {
        let (store, now) = self.kv()?;
        Ok(store.set(&key, value, ttl_ms, now).map_err(Into::into))
    }

    fn delete(&mut self, key: String) -> Result<()> {
        let (store, _) = self.kv()?;
        store.delete(&key);
        Ok(())
    }

    fn add(
        &mut self,
        key: String,
        delta: i64,
        ttl_ms: u32,
    ) -> Result<std::result::Result<i64, kv::KvError>> {
        let (store, now) = self.kv()?;
        Ok(store.add(&key, delta, ttl_ms, now).map_err(Into::into))
    }

    fn take(
        &mut self,
        key: String,
        cost: u32,
        per_minute: u32,
        burst: u32,
    ) -> Result<std::result::Result<kv::Bucket, kv::KvError>> {
        let (store, now) = self.kv()?;
        let taken = store.take(&key, cost, per_minute, burst, now);
        let bucket = |taken: super::kv::Taken| kv::Bucket {
            taken: taken.taken,
            remaining: taken.remaining,
            retry_after_ms: taken.retry_after_ms,
        };
        Ok(taken.map(bucket).map_err(Into::into))
    }
}

impl State {
    /// Returns the metrics that count a metric of the plugin's own; none in a warm-up, or where the metric is not
    /// granted.
    fn own_metrics(&mut self, name: &str) -> Result<Option<&PluginMetrics>> {
        self.outer_call("metrics")?;
        if self.phase == Phase::WarmUp {
            return Ok(None);
        }
        let Shared {
            metrics, grants, ..
        } = &*self.shared;
        if !grants.metrics.iter().any(|granted| granted == name) {
            metrics.custom_dropped.inc();
            return Ok(None);
        }
        Ok(Some(metrics))
    }
}

impl metrics::Host for State {
    fn add(&mut self, name: String, labels: Vec<(String, String)>, delta: u64) -> Result<()> {
        if let Some(metrics) = self.own_metrics(&name)? {
            metrics.custom_add(&name, labels, delta);
        }
        Ok(())
    }

    fn observe(&mut self, name: String, labels: Vec<(String, String)>, value: f64) -> Result<()> {
        if let Some(metrics) = self.own_metrics(&name)? {
            metrics.custom_observe(&name, labels, value);
        }
        Ok(())
    }
}

impl State {
    fn crypto(&mut self) -> Result<&super::crypto::Issuers> {
        self.host_call()?;
        let issuers = self.shared.grants.crypto.as_ref();
        issuers.ok_or_else(|| not_granted(&self.shared.name, "crypto"))
    }
}

impl From<JwtError> for crypto::JwtError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed => Self::Malformed,
            JwtError::UnknownIssuer => Self::UnknownIssuer,
            JwtError::UnknownKey => Self::UnknownKey,
            JwtError::BadSignature => Self::BadSignature,
            JwtError::Expired => Self::Expired,
            JwtError::NotYetValid => Self::NotYetValid,
            JwtError::WrongIssuer => Self::WrongIssuer,
            JwtError::WrongAudience => Self::WrongAudience,
        }
    }
}

impl crypto::Host for State {
    fn verify_jwt(
        &mut self,
        token: String,
        issuer: String,
    ) -> Result<std::result::Result<String, crypto::JwtError>> {
        self.is_impure = true;
        let now = self.shared.clock.unix_ms() / 1000;
        let verified = self.crypto()?.verify(&token, &issuer, now);
        Ok(verified.map_err(Into::into))
    }

    fn sha256(&mut self, data: Vec<u8>) -> Result<Vec<u8>> {
        self.crypto()?;
        check_hashed(data.len())?;
        Ok(sha256(&data))
    }

    fn hmac_sha256(&mut self, key: Vec<u8>, data: Vec<u8>) -> Result<Vec<u8>> {
        self.crypto()?;
        check_hashed(key.len() + data.len())?;
        Ok(hmac_sha256(&key, &data))
    }

    fn equal(&mut self, a: Vec<u8>, b: Vec<u8>) -> Result<bool> {
        self.crypto()?;
        Ok(equal(&a, &b))
    }
}

/// Keeps one call of the host short: a guest cannot be stopped within it.
fn check_hashed(bytes: usize) -> Result<()> {
    if bytes > MOST_HASHED {
        bail!("at most {MOST_HASHED} bytes are hashed in one call, {bytes} were given");
    }
    Ok(())
}

impl From<OutboundError> for http::HttpError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Denied => Self::Denied,
            OutboundError::Invalid => Self::Invalid,
            OutboundError::Dns => Self::Dns,
            OutboundError::Connect => Self::Connect,
            OutboundError::Timeout => Self::Timeout,
            OutboundError::TooLarge => Self::TooLarge,
            OutboundError::Protocol => Self::Protocol,
        }
    }
}

impl http::Host for State {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> Result<std::result::Result<http::Response, http::HttpError>> {
        self.outer_call("http")?;
        self.is_impure = true;
        let outbound = self.shared.grants.http.as_ref();
        let Some(outbound) = outbound.filter(|_| self.phase == Phase::Call) else {
            return Ok(Err(http::HttpError::Denied));
        };
        if self.n_http >= outbound.max_requests() {
            return Ok(Err(http::HttpError::Budget));
        }
        self.n_http += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let own = Duration::from_millis(request.timeout_ms.into());
        let request = outbound::Request {
            method: request.method,
            url: request.url,
            headers: pairs(request.headers),
            body: request.body,
            timeout: if own.is_zero() { left } else { own.min(left) },
        };
        let header = |(name, value)| types::HeaderResult { name, value };
        let answered = outbound.send(request).await;
        let response = |answer: outbound::Response| http::Response {
            status: answer.status,
            headers: answer.headers.into_iter().map(header).collect(),
            body: answer.body,
        };
        Ok(answered.map(response).map_err(Into::into))
    }
}

fn pairs(headers: Vec<types::HeaderResult>) -> Vec<(String, String)> {
    let pair = |header: types::HeaderResult| (header.name, header.value);
    headers.into_iter().map(pair).collect()
}
