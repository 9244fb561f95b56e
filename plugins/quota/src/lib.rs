//! Limits how many tokens a caller may embed in a day, in UTC, and how many requests it may send in a minute.
//!
//! Tokens are estimated, because no tokenizer runs before the model is known. Counts are the gateway process's: they
//! outlive a reload of the plugin, not a restart.

mod estimate;

use std::collections::BTreeMap;
use std::time::Duration;

use embedgate_plugin::{
    EmbedRequest, Lifecycle, Outcome, Preprocessor, Principal, Rejection, Settings, clock, kv,
    settings,
};

struct Quota;

/// The plugin's settings. 0 tokens or requests: unlimited.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Estimated tokens that each caller may embed in a day.
    per_day: u64,
    /// Requests that each caller may send in a minute.
    #[serde(default)]
    per_minute: u32,
    /// Limits of single callers, by subject.
    #[serde(default)]
    subjects: BTreeMap<String, Limits>,
    /// What happens where the plugin's memory is full.
    #[serde(default)]
    when_full: WhenFull,
}

/// One caller's limits; what is not there is as for all.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    per_day: Option<u64>,
    per_minute: Option<u32>,
}

/// What is worse: a caller without a limit, or one without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum WhenFull {
    #[default]
    Reject,
    Allow,
}

static CONFIG: Settings<Config> = Settings::new();

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Lifecycle for Quota {
    fn init(text: &str) -> Result<(), String> {
        CONFIG.set(settings::parse(text)?)
    }
}

impl Preprocessor for Quota {
    fn preprocess(request: EmbedRequest, caller: Option<Principal>) -> Result<Outcome, Rejection> {
        let config = CONFIG.get();
        // Callers whom nobody authenticated share one quota. No subject is empty.
        let subject = caller.map_or(String::new(), |caller| caller.subject);
        let limits = config.subjects.get(&subject);
        let per_minute = limits
            .and_then(|limits| limits.per_minute)
            .unwrap_or(config.per_minute);
        let per_day = limits
            .and_then(|limits| limits.per_day)
            .unwrap_or(config.per_day);
        if per_minute > 0 {
            take_request(&subject, per_minute, config.when_full)?;
        }
        if per_day > 0 {
            add_tokens(
                &subject,
                estimate::tokens(&request.inputs),
                per_day,
                config.when_full,
            )?;
        }
        Ok(Outcome::Unchanged)
    }
}

/// Takes one request from what the caller may send in a minute. All of them may come at once.
fn take_request(subject: &str, per_minute: u32, when_full: WhenFull) -> Result<(), Rejection> {
    let rate = kv::Rate {
        per_minute,
        burst: per_minute,
    };
    let Some(bucket) = unless_full(kv::take(&format!("minute/{subject}"), 1, rate), when_full)?
    else {
        return Ok(());
    };
    if bucket.taken {
        return Ok(());
    }
    let wait = Duration::from_millis(bucket.retry_after_ms.into());
    let message = format!("the quota of {per_minute} requests a minute is used up");
    Err(Rejection::too_many_requests(message, wait).with_code("rate_limit_exceeded"))
}

/// Adds to what the caller embedded today, and takes it back where that is too much: a smaller request may still fit.
fn add_tokens(
    subject: &str,
    tokens: u64,
    per_day: u64,
    when_full: WhenFull,
) -> Result<(), Rejection> {
    let now_ms = clock::unix_ms();
    let until_midnight = Duration::from_millis(DAY_MS - now_ms % DAY_MS);
    let key = format!("day/{}/{subject}", now_ms / DAY_MS);
    let delta = i64::try_from(tokens).unwrap_or(i64::MAX);
    let Some(used) = unless_full(kv::add(&key, delta, Some(until_midnight)), when_full)? else {
        return Ok(());
    };
    if u64::try_from(used).is_ok_and(|used| used > per_day) {
        // It was there a moment ago; where it is not any more, the day is over.
        _ = kv::add(&key, -delta, Some(until_midnight));
        let left = per_day.saturating_sub(u64::try_from(used - delta).unwrap_or(0));
        let message = format!(
            "the quota of {per_day} tokens a day has room for {left} more until midnight UTC, \
             the request has about {tokens}"
        );
        return Err(
            Rejection::too_many_requests(message, until_midnight).with_code("quota_exceeded")
        );
    }
    Ok(())
}

/// Returns none where nothing can be counted and the settings allow that.
fn unless_full<T>(
    counted: Result<T, kv::KvError>,
    when_full: WhenFull,
) -> Result<Option<T>, Rejection> {
    match (counted, when_full) {
        (Ok(value), _) => Ok(Some(value)),
        (Err(error), WhenFull::Allow) => {
            embedgate_plugin::warn!("a request is not counted: {error:?}");
            Ok(None)
        }
        (Err(error), WhenFull::Reject) => Err(Rejection::unavailable(format!(
            "quotas cannot be counted: {error:?}"
        ))),
    }
}

embedgate_plugin::export!(Quota: lifecycle, preprocessor);

#[cfg(test)]
mod tests;
