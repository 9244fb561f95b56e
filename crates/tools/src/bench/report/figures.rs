//! The figures of a row, and their medians.

use serde::Serialize;

use crate::bench::Measured;

/// Rates are a second; times are milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Good answers.
    pub requests_per_second: f64,
    /// Inputs in good answers.
    pub inputs_per_second: f64,
    /// Tokens in good answers.
    pub tokens_per_second: f64,
    /// Median time of a good answer.
    pub p50_ms: f64,
    /// Nine of ten are quicker.
    pub p90_ms: f64,
    /// 99 of 100 are quicker.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Answers of 429 and 503.
    pub refused_per_second: f64,
    /// 99 of 100 refusals are quicker.
    pub refused_p99_ms: f64,
    /// Other answers, and requests without one.
    pub errors: f64,
    /// Requests of an open loop that the client had no room for.
    pub unsent: f64,
    /// Tokens of the background.
    pub background_tokens_per_second: f64,
}

impl Figures {
    /// Makes rates and times of what was measured.
    pub(super) fn new(measured: &Measured, background: Option<&Measured>) -> Self {
        let per_second = |n: u64| n as f64 / measured.seconds;
        let ms = |us: u64| us as f64 / 1e3;
        let times = &measured.times;
        let beside = background.map(|b| b.tokens as f64 / b.seconds);
        Self {
            requests_per_second: per_second(times.len()),
            inputs_per_second: per_second(measured.inputs),
            tokens_per_second: per_second(measured.tokens),
            p50_ms: ms(times.value_at_quantile(0.5)),
            p90_ms: ms(times.value_at_quantile(0.9)),
            p99_ms: ms(times.value_at_quantile(0.99)),
            max_ms: ms(times.max()),
            refused_per_second: per_second(measured.refusals.len()),
            refused_p99_ms: ms(measured.refusals.value_at_quantile(0.99)),
            errors: measured.errors as f64,
            unsent: measured.unsent as f64,
            background_tokens_per_second: beside.unwrap_or_default(),
        }
    }

    /// Computes the median of each figure.
    pub(super) fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(all.iter().map(figure).collect());
        Self {
            requests_per_second: of(|f| f.requests_per_second),
            inputs_per_second: of(|f| f.inputs_per_second),
            tokens_per_second: of(|f| f.tokens_per_second),
            p50_ms: of(|f| f.p50_ms),
            p90_ms: of(|f| f.p90_ms),
            p99_ms: of(|f| f.p99_ms),
            max_ms: of(|f| f.max_ms),
            refused_per_second: of(|f| f.refused_per_second),
            refused_p99_ms: of(|f| f.refused_p99_ms),
            errors: of(|f| f.errors),
            unsent: of(|f| f.unsent),
            background_tokens_per_second: of(|f| f.background_tokens_per_second),
        }
    }
}

/// The middle of some numbers; 0 of none.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let n = all.len();
    match n {
        0 => 0.0,
        n if n % 2 == 1 => all[n / 2],
        n => (all[n / 2 - 1] + all[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![4.0, 1.0]) - 2.5).abs() < 1e-12);
        assert!(median(Vec::new()).abs() < 1e-12);
    }
}
