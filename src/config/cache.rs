//! `[cache]`.

use serde::{Deserialize, Serialize};

use super::{ByteSize, Period, Problem};

/// The cache of vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for vectors; `"0B"` turns the cache off. A vector of 1024 dimensions takes about 4.3 KiB.
    pub max_size: ByteSize,
    /// Vectors are dropped so long after they were computed; none means when memory is needed.
    pub ttl: Option<Period>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(512),
            ttl: None,
        }
    }
}

impl CacheConfig {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        if let Some(ttl) = self.ttl {
            ttl.check("cache.ttl", problems);
        }
    }
}
