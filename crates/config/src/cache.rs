//! `[cache]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Period, Problem};

/// The cache of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for results; `"0B"` turns the cache in memory off. A vector of 1024 dimensions takes about 4.3 KiB.
    pub max_size: ByteSize,
    /// Memory for vectors that are asked for again and again as they are written in answers (JSON or base64), 5 to 12
    /// KiB each; `"0B"` keeps none.
    pub max_text_size: ByteSize,
    /// Results are dropped so long after they were computed. Without it: when memory is needed.
    pub ttl: Option<Period>,
    /// The results that are kept when memory is short: `"tinylfu"` keeps those that are asked for often, `"lru"` those
    /// that were asked for last.
    pub policy: CachePolicy,
    /// `"f16"` halves the memory; every answer is rounded alike, whether computed or kept.
    pub value_precision: ValuePrecision,
    /// True where callers with different keys share results. If not, nobody can tell from the time of an answer that
    /// somebody else asked for the same text.
    pub shared: bool,
    /// A file that outlives the process.
    pub file: CacheFileConfig,
}

/// `[cache.file]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table, [cache.file] with path = \"/var/cache/embedgate/results.redb\""
)]
pub struct CacheFileConfig {
    /// A file that outlives the process. Without it: results live in memory alone. Where it fails, or another process
    /// has it, serving goes on without it, and it is tried again (metric `embedgate_cache_file_used`).
    pub path: Option<PathBuf>,
    /// The length of the file at most; the oldest results make room. It grows by doubling: 1.1, 2.3, 4.6 GB, then by
    /// 4.3. A vector of 1024 dimensions takes 8.5 KB of it, 4.3 KB in f16.
    pub max_size: ByteSize,
}

/// The rule that selects the results to keep when memory is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CachePolicy {
    /// Keeps the results that are asked for often: they survive a scan of more texts than the memory holds.
    #[default]
    TinyLfu,
    /// Keeps the results that were asked for last.
    Lru,
}

/// The number format of cached values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValuePrecision {
    /// As computed.
    #[default]
    F32,
    /// In half of the memory, with 11 bits of mantissa.
    F16,
}

impl CacheConfig {
    /// Returns a copy of this configuration with the settings of `other` that can be changed while the gateway serves.
    #[must_use]
    pub fn with_sizes_of(&self, other: &Self) -> Self {
        Self {
            max_size: other.max_size,
            max_text_size: other.max_text_size,
            ttl: other.ttl,
            policy: other.policy,
            ..self.clone()
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_size: ByteSize::mib(512),
            max_text_size: ByteSize::mib(64),
            ttl: None,
            policy: CachePolicy::TinyLfu,
            value_precision: ValuePrecision::F32,
            shared: false,
            file: CacheFileConfig::default(),
        }
    }
}

impl Default for CacheFileConfig {
    fn default() -> Self {
        Self {
            path: None,
            max_size: ByteSize::mib(5120),
        }
    }
}

impl CacheConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        if let Some(ttl) = self.ttl {
            ttl.check("cache.ttl", problems);
        }
        if let Some(path) = &self.file.path
            && (path.as_os_str().is_empty() || path.is_dir())
        {
            let shown = path.display();
            let message = format!(
                "\"{shown}\" is no name of a file: write it as \"/var/cache/embedgate/results.redb\""
            );
            problems.push(Problem::new("cache.file.path", message));
        }
        if self.file.max_size.0 < 8 << 20 {
            let message = format!("{} is too small, use at least 8MiB", self.file.max_size);
            problems.push(Problem::new("cache.file.max_size", message));
        }
    }
}
