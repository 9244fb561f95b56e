//! Vectors by what they depend on, and one computation for equal inputs in flight.

use std::{future::Future, sync::Arc};

use moka::future::Cache;

use crate::{config::CacheConfig, error::Error, model::Model, request::Input};

/// Bytes that an entry takes beside its numbers: key, lengths and moka's bookkeeping, measured as about 200.
const ENTRY_OVERHEAD: usize = 200;

/// The identity of a vector: model fingerprint, output, kind and bytes of the input, prompt, truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of one input's dense vector. `dimensions`, normalization and encoding are applied later, so they are not
    /// in it.
    #[must_use]
    pub fn dense(model: &Model, input: &Input, truncate: bool) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(model.fingerprint.as_bytes());
        field(b"dense");
        field(&[u8::from(truncate)]);
        match input {
            Input::Text(text) => {
                field(b"text");
                field(model.prompt.as_bytes());
                field(text.as_bytes());
            }
            Input::Tokens(ids) => {
                field(b"tokens");
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                field(&bytes);
            }
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// What is kept of one input.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedEmbedding {
    /// Pooled, of the model's own width, not normalized.
    pub vector: Box<[f32]>,
    /// Tokens that the model saw.
    pub n_tokens: usize,
    /// Tokens of the whole input.
    pub n_tokens_full: usize,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddingCache {
    entries: Cache<CacheKey, Arc<CachedEmbedding>>,
}

impl EmbeddingCache {
    /// Makes an empty cache. With a size of 0 nothing is kept, and equal inputs in flight still share one computation.
    #[must_use]
    pub fn new(config: &CacheConfig) -> Self {
        let weigh = |_: &CacheKey, value: &Arc<CachedEmbedding>| {
            u32::try_from(size_of_val(&*value.vector) + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let mut builder = Cache::builder()
            .max_capacity(config.max_size.0)
            .weigher(weigh);
        if let Some(ttl) = config.ttl {
            builder = builder.time_to_live(ttl.0);
        }
        Self {
            entries: builder.build(),
        }
    }

    /// The vector, if it is there.
    pub async fn get(&self, key: &CacheKey) -> Option<Arc<CachedEmbedding>> {
        self.entries.get(key).await
    }

    /// The vector, computed by `compute` if it is neither there nor being computed by somebody else.
    ///
    /// Dropping the future is safe: another caller that waits for the same key computes it instead.
    ///
    /// # Errors
    /// What `compute` fails with; every caller waiting for it gets the same, and nothing is kept.
    pub async fn get_or_compute(
        &self,
        key: CacheKey,
        compute: impl Future<Output = Result<CachedEmbedding, Error>>,
    ) -> Result<Arc<CachedEmbedding>, Error> {
        let shared = self
            .entries
            .try_get_with(key, async { compute.await.map(Arc::new) })
            .await;
        shared.map_err(|error| (*error).clone())
    }
}
