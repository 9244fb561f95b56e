//! Results by what they depend on: in memory, optionally in a file behind it, and one computation for equal inputs in flight.
//!
//! A result is kept as the model gave it: cutting, normalizing and encoding come after. [`key`] makes the identities,
//! [`value`] is a result as it is kept, in [`numbers`] of a precision, `bytes` writes it for [`mod@file`], which outlives the process;
//! `flights` lets callers share results that are being computed.

mod bytes;
pub(crate) mod file;
mod flights;
pub(crate) mod key;
pub(crate) mod numbers;
pub(crate) mod value;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use embedgate_config::{CacheConfig, CachePolicy};
use embedgate_core::{Head, PerHead};
use embedgate_metrics::Metrics;
use embedgate_request::{Error, HashKey, Lane, Principal, VectorText};
use moka::{future::Cache, notification::RemovalCause, policy::EvictionPolicy};

use self::{file::WarmFile, flights::Flights, key::KeyParts, value::Computed};
pub(crate) use self::{flights::Flight, key::CacheKey, value::CachedValue};
use crate::batch::Urgent;

/// Bytes that an entry takes beside its numbers: key, lengths and moka's bookkeeping, measured as about 200.
const ENTRY_OVERHEAD: usize = 200;

/// A vector's text is known by the vector's key and what was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TextKey {
    /// The vector's.
    pub key: CacheKey,
    /// The form in which the vector is written.
    pub form: VectorText,
    /// The dimensions that the vector is cut to.
    pub dimensions: usize,
    /// True when the vector is normalized to length 1.
    pub normalized: bool,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EmbeddingCache(Arc<Inner>);

struct Inner {
    /// None where the configuration gives it no memory.
    memory: Option<Cache<CacheKey, Arc<CachedValue>>>,
    texts: Option<Cache<TextKey, Arc<str>>>,
    file: Option<WarmFile>,
    flights: Arc<Flights>,
    /// The secret of the keys when there is no file.
    hash_key: HashKey,
    /// The configuration that the cache was made from.
    config: CacheConfig,
}

impl EmbeddingCache {
    /// Makes a cache, over what the file holds where there is one.
    ///
    /// With a size of 0 nothing is kept in memory; equal inputs in flight share one computation all the same.
    #[must_use]
    pub(crate) fn new(config: &CacheConfig, file: Option<WarmFile>, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            memory: (config.max_size.0 > 0).then(|| memory(config, metrics)),
            texts: texts(config),
            file,
            flights: Arc::default(),
            hash_key: HashKey::random(),
            config: config.clone(),
        }))
    }

    /// Returns true when the cache has the sizes of a configuration.
    #[must_use]
    pub(crate) fn has_sizes(&self, config: &CacheConfig) -> bool {
        self.0.config == self.0.config.with_sizes_of(config)
    }

    /// A cache of other sizes with the same results, as far as they fit, over the same file.
    #[must_use]
    pub(crate) async fn resized(&self, config: &CacheConfig, metrics: &Metrics) -> Self {
        let resized = Inner {
            memory: (config.max_size.0 > 0).then(|| memory(config, metrics)),
            texts: texts(config),
            file: self.0.file.clone(),
            flights: Arc::clone(&self.0.flights),
            hash_key: self.0.hash_key,
            config: self.0.config.with_sizes_of(config),
        };
        if let (Some(from), Some(to)) = (&self.0.memory, &resized.memory) {
            for (key, value) in from {
                to.insert(*key, value).await;
            }
        }
        Self(Arc::new(resized))
    }

    /// The key of one result. Principals have keys of their own unless the configuration says `shared`: the time of an
    /// answer tells whether somebody asked for that text before.
    #[must_use]
    pub(crate) fn key(&self, principal: &Principal, parts: &KeyParts<'_>, head: Head) -> CacheKey {
        let namespace = principal.namespace().filter(|_| !self.0.config.shared);
        let of_file = self.0.file.as_ref().map(WarmFile::hash_key);
        CacheKey::new(&of_file.unwrap_or(self.0.hash_key), namespace, parts, head)
    }

    /// The result, if it is in memory.
    pub(crate) async fn get(&self, key: &CacheKey) -> Option<Arc<CachedValue>> {
        self.0.memory.as_ref()?.get(key).await
    }

    /// Returns true when there is a file to look into.
    #[must_use]
    pub(crate) fn has_file(&self) -> bool {
        self.0.file.as_ref().is_some_and(WarmFile::is_on)
    }

    /// The results that are in the file, in the order of the keys. They are in memory afterwards.
    pub(crate) async fn get_from_file(&self, keys: Vec<CacheKey>) -> Vec<Option<Arc<CachedValue>>> {
        let n = keys.len();
        let Some(file) = self.0.file.as_ref().filter(|file| file.is_on()) else {
            return vec![None; n];
        };
        let found = file.read(keys.clone()).await;
        let mut values = Vec::with_capacity(n);
        for (key, value) in keys.into_iter().zip(found) {
            let value = value.map(Arc::new);
            if let (Some(memory), Some(value)) = (&self.0.memory, &value) {
                memory.insert(key, Arc::clone(value)).await;
            }
            values.push(value);
        }
        values
    }

    /// Joins the flight under this key, if there is one.
    #[must_use]
    pub(crate) fn join(&self, key: &CacheKey, lane: Lane) -> Option<Flight> {
        self.0.flights.join(key, lane)
    }

    /// Begins to compute the results of these keys, unless somebody else began in the meantime.
    ///
    /// The work goes on as long as somebody waits for it: whoever begins it may leave, and when all have left it is
    /// dropped. An error goes to all who wait, and nothing is kept.
    pub(crate) fn start<F>(
        &self,
        keys: PerHead<CacheKey>,
        lane: Lane,
        compute: impl FnOnce(Urgent) -> F,
    ) -> Flight
    where
        F: Future<Output = Result<Computed, Error>> + Send + 'static,
    {
        let cache = self.clone();
        self.0.flights.start(keys, lane, |urgent| {
            // It is large, and moved several times on its way.
            let compute = Box::pin(compute(urgent));
            async move {
                // Somebody may have finished between the caller's look into the cache and this flight's beginning.
                if let Some(found) = cache.get_all(&keys).await {
                    return Ok(Arc::new(found));
                }
                let computed = compute.await?;
                let values = computed.into_values(cache.0.config.value_precision, now_seconds());
                cache.keep(&keys, &values).await;
                Ok(Arc::new(values))
            }
        })
    }

    async fn get_all(&self, keys: &PerHead<CacheKey>) -> Option<PerHead<Arc<CachedValue>>> {
        let memory = self.0.memory.as_ref()?;
        let mut found = PerHead::default();
        for (head, key) in keys.iter() {
            found.set(head, memory.get(key).await?);
        }
        Some(found)
    }

    async fn keep(&self, keys: &PerHead<CacheKey>, values: &PerHead<Arc<CachedValue>>) {
        for (head, key) in keys.iter() {
            let Some(value) = values.get(head) else {
                continue;
            };
            if let Some(memory) = &self.0.memory {
                memory.insert(*key, Arc::clone(value)).await;
            }
            if let Some(file) = &self.0.file {
                file.write(*key, Arc::clone(value));
            }
        }
    }

    /// The text of a vector, if it is kept.
    pub(crate) async fn get_text(&self, key: &TextKey) -> Option<Arc<str>> {
        self.0.texts.as_ref()?.get(key).await
    }

    /// The text of a vector that was asked for before; `render` makes it where it is not kept yet.
    pub(crate) async fn text(&self, key: TextKey, render: impl FnOnce() -> Arc<str>) -> Arc<str> {
        let Some(texts) = &self.0.texts else {
            return render();
        };
        if let Some(text) = texts.get(&key).await {
            return text;
        }
        let text = render();
        texts.insert(key, Arc::clone(&text)).await;
        text
    }

    /// Entries and bytes in memory, about.
    #[must_use]
    pub(crate) async fn size(&self) -> (u64, u64) {
        // What was put in or left a moment ago is counted only when the cache has tidied up.
        if let Some(memory) = &self.0.memory {
            memory.run_pending_tasks().await;
        }
        let size = |cache: &Cache<CacheKey, _>| (cache.entry_count(), cache.weighted_size());
        let texts = self.0.texts.as_ref().map_or(0, Cache::weighted_size);
        let (entries, bytes) = self.0.memory.as_ref().map_or((0, 0), size);
        (entries, bytes + texts)
    }

    /// Writes what the file does not have yet.
    pub(crate) async fn flush(&self) {
        if let Some(file) = &self.0.file {
            file.flush().await;
        }
    }
}

/// The cache of texts of vectors, where there is one.
fn texts(config: &CacheConfig) -> Option<Cache<TextKey, Arc<str>>> {
    let texts = Cache::builder()
        .max_capacity(config.max_text_size.0)
        .weigher(|_, text: &Arc<str>| weight(text.len()));
    (config.max_text_size.0 > 0 && config.max_size.0 > 0).then(|| texts.build())
}

fn memory(config: &CacheConfig, metrics: &Metrics) -> Cache<CacheKey, Arc<CachedValue>> {
    let policy = match config.policy {
        CachePolicy::TinyLfu => EvictionPolicy::tiny_lfu(),
        CachePolicy::Lru => EvictionPolicy::lru(),
    };
    let metrics = metrics.clone();
    let left = move |_: Arc<CacheKey>, _: Arc<CachedValue>, cause| match cause {
        RemovalCause::Size => metrics.evicted("size"),
        RemovalCause::Expired => metrics.evicted("expired"),
        RemovalCause::Explicit | RemovalCause::Replaced => {}
    };
    let builder = Cache::builder()
        .max_capacity(config.max_size.0)
        .eviction_policy(policy)
        .weigher(|_, value: &Arc<CachedValue>| weight(value.bytes() + ENTRY_OVERHEAD))
        .eviction_listener(left);
    match config.ttl {
        Some(ttl) => builder.expire_after(TimeToLive(ttl.0)).build(),
        None => builder.build(),
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Counts from when a result was computed, which may have been before this process began.
struct TimeToLive(Duration);

impl moka::Expiry<CacheKey, Arc<CachedValue>> for TimeToLive {
    fn expire_after_create(
        &self,
        _: &CacheKey,
        value: &Arc<CachedValue>,
        _: Instant,
    ) -> Option<Duration> {
        let age = now_seconds().saturating_sub(value.computed_at);
        Some(self.0.saturating_sub(Duration::from_secs(age)))
    }
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
