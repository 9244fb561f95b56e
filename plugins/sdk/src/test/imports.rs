//! The interface's host functions, on the test host of this thread.

use super::with_state;

/// Always there.
pub(crate) mod log {
    use super::with_state;
    use crate::log::Level;
    use crate::test::Line;

    pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
        let line = Line {
            level,
            message: message.to_owned(),
            fields: fields.to_vec(),
        };
        with_state(|state| state.lines.push(line));
    }

    pub(crate) fn enabled(_: Level) -> bool {
        true
    }
}

/// Always there; stands still unless the test moves it.
pub(crate) mod clock {
    use super::with_state;

    pub(crate) fn unix_ms() -> u64 {
        with_state(|state| state.now_ms)
    }

    pub(crate) fn monotonic_ns() -> u64 {
        unix_ms() * 1_000_000
    }
}

/// Always there; the same in every run.
pub(crate) mod random {
    use sha2::{Digest, Sha256};

    use super::with_state;

    pub(crate) fn bytes(n: u32) -> Vec<u8> {
        assert!(
            n <= 4096,
            "random: {n} bytes are more than a call may ask for, 4096"
        );
        with_state(|state| {
            let byte = |_| {
                state.n_random += 1;
                Sha256::digest(state.n_random.to_le_bytes())[0]
            };
            (0..n).map(byte).collect()
        })
    }
}

pub(crate) mod secrets {
    use super::with_state;

    pub(crate) fn get(name: &str) -> Option<String> {
        with_state(|state| {
            state
                .secrets
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        })
    }
}

pub(crate) mod kv {
    use super::{not_in_init, with_state};
    use crate::kv::{Bucket, KvError};
    use crate::test::kv::Store;

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        with_store(|store, now_ms| store.get(key, now_ms))
    }

    pub(crate) fn set(key: &str, value: &[u8], ttl_ms: u32) -> Result<(), KvError> {
        with_store(|store, now_ms| store.set(key, value, ttl_ms, now_ms))
    }

    pub(crate) fn delete(key: &str) {
        with_store(|store, _| store.delete(key));
    }

    pub(crate) fn add(key: &str, delta: i64, ttl_ms: u32) -> Result<i64, KvError> {
        with_store(|store, now_ms| store.add(key, delta, ttl_ms, now_ms))
    }

    pub(crate) fn take(
        key: &str,
        cost: u32,
        per_minute: u32,
        burst: u32,
    ) -> Result<Bucket, KvError> {
        with_store(|store, now_ms| {
            store.take(key, cost, crate::kv::Rate { per_minute, burst }, now_ms)
        })
    }

    fn with_store<T>(f: impl FnOnce(&mut Store, u64) -> T) -> T {
        not_in_init("kv");
        with_state(|state| {
            f(
                state
                    .kv
                    .as_mut()
                    .expect("kv is not granted: TestHost::with_kv"),
                state.now_ms,
            )
        })
    }
}

pub(crate) mod metrics {
    use super::{not_in_init, with_state};
    use crate::test::Sample;

    pub(crate) fn add(name: &str, labels: &[(String, String)], delta: u64) {
        // Counts in tests are small.
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts in tests are far below 2^53"
        )]
        observe(name, labels, delta as f64);
    }

    pub(crate) fn observe(name: &str, labels: &[(String, String)], value: f64) {
        not_in_init("metrics");
        let sample = Sample {
            name: name.to_owned(),
            labels: labels.to_vec(),
            value,
        };
        with_state(|state| {
            if state.metrics.contains(&sample.name) {
                state.samples.push(sample);
            }
        });
    }
}

pub(crate) mod crypto {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};

    use super::with_state;
    use crate::crypto::JwtError;
    use crate::test::Issuer;

    pub(crate) fn verify_jwt(token: &str, issuer: &str) -> Result<String, JwtError> {
        let now_ms = with_state(|state| state.now_ms);
        with_issuers(|issuers| {
            let issuer = issuers
                .iter()
                .find(|known| known.name == issuer)
                .ok_or(JwtError::UnknownIssuer)?;
            issuer.verify(token, now_ms / 1000)
        })
    }

    pub(crate) fn sha256(data: &[u8]) -> Vec<u8> {
        with_issuers(|_| Sha256::digest(data).to_vec())
    }

    pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
        with_issuers(|_| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        })
    }

    pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
        with_issuers(|_| a == b)
    }

    fn with_issuers<T>(f: impl FnOnce(&[Issuer]) -> T) -> T {
        with_state(|state| {
            f(state
                .crypto
                .as_ref()
                .expect("crypto is not granted: TestHost::with_crypto"))
        })
    }
}

pub(crate) mod http {
    use super::{not_in_init, with_state};
    use crate::http::{HttpError, Request, Response};

    pub(crate) fn send(request: &Request) -> Result<Response, HttpError> {
        not_in_init("http");
        with_state(|state| {
            state
                .http
                .as_mut()
                .expect("http is not granted: TestHost::with_http")(request)
        })
    }
}

fn not_in_init(interface: &str) {
    let in_init = with_state(|state| state.in_init);
    assert!(
        !in_init,
        "{interface} may not be called from init: what it did would not be in the snapshot"
    );
}
