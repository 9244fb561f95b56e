//! Principals that a plugin has named, for as long as it allows.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use embedgate_request::Identity;

use crate::interface::RequestHead;

/// Credentials that are remembered; beyond, those whose time is over are dropped, and then all.
const MOST_REMEMBERED: usize = 10_000;
/// The head of a request that is remembered; a larger one is asked about each time.
const MOST_HEAD_BYTES: usize = 4 << 10;

/// Principals by request head, for as long as their plugin allows.
#[derive(Default)]
pub(in crate::wasm) struct Remembered {
    by_head: DashMap<Box<[u8]>, (Instant, Arc<Identity>), foldhash::fast::RandomState>,
    /// Goes up when all are forgotten: what was asked for before is not remembered any more.
    generation: AtomicU64,
}

impl Remembered {
    /// The principal of a head, where it is still known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<Identity>> {
        let found = self.by_head.get(key)?;
        let (until, identity) = &*found;
        (Instant::now() < *until).then(|| Arc::clone(identity))
    }

    /// Forgets all.
    pub(in crate::wasm) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.by_head.clear();
    }

    /// The number of times that all were forgotten.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Remembers a principal for a time, unless all were forgotten since `generation`.
    pub(super) fn put(
        &self,
        key: &[u8],
        time: Duration,
        identity: &Arc<Identity>,
        generation: u64,
    ) {
        if key.len() > MOST_HEAD_BYTES {
            return;
        }
        let now = Instant::now();
        if self.by_head.len() >= MOST_REMEMBERED {
            self.by_head.retain(|_, (until, _)| *until > now);
            if self.by_head.len() >= MOST_REMEMBERED {
                self.by_head.clear();
            }
        }
        let known = (now + time, Arc::clone(identity));
        self.by_head.insert(key.into(), known);
        if self.generation() != generation {
            self.by_head.remove(key);
        }
    }
}

/// Everything that the plugin sees of a request but its id: equal for equal requests alone.
pub(super) fn key(head: &RequestHead<'_>, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1024);
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    match head.client_ip {
        None => part(&[]),
        Some(IpAddr::V4(v4)) => part(&v4.octets()),
        Some(IpAddr::V6(v6)) => part(&v6.octets()),
    }
    // No query and an empty one are two things.
    part(&[u8::from(head.query.is_some())]);
    for text in [head.method, head.path, head.query.unwrap_or_default()] {
        part(text.as_bytes());
    }
    for (name, value) in headers {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    key
}
