//! The medians of all rounds, as a table for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

use super::{BenchConfig, Load, Measured, Target};

/// The results of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One a load and target, in the order of the loads.
    pub rows: Vec<Row>,
    #[serde(skip)]
    seen: Vec<Vec<Figures>>,
}

/// One target under one load: medians of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The target's name.
    pub target: String,
    /// The load, in words.
    pub load: String,
    #[serde(skip)]
    key: Load,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Requests a second in proportion to the first target's, the median of the rounds' ratios.
    pub ratio: f64,
}

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
    fn new(measured: &Measured, background: Option<&Measured>) -> Self {
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
    fn median(all: &[Self]) -> Self {
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

impl Report {
    pub(super) fn new(config: &BenchConfig) -> Self {
        let pairs = config
            .loads
            .iter()
            .flat_map(|load| config.targets.iter().map(move |target| (load, target)));
        let rows: Vec<Row> = pairs
            .map(|(load, target)| Row {
                target: target.name.clone(),
                load: load.to_string(),
                key: *load,
                figures: Figures::default(),
                ratio: 1.0,
            })
            .collect();
        Self {
            seen: vec![Vec::new(); rows.len()],
            rows,
        }
    }

    pub(super) fn add(
        &mut self,
        target: &Target,
        load: Load,
        measured: &Measured,
        background: Option<&Measured>,
    ) {
        let is_it = |row: &Row| row.target == target.name && row.key == load;
        let Some(at) = self.rows.iter().position(is_it) else {
            return;
        };
        self.seen[at].push(Figures::new(measured, background));
        self.rows[at].figures = Figures::median(&self.seen[at]);
        // The first target stands first under each load, and was measured first in this round.
        let first = self
            .rows
            .iter()
            .position(|row| row.key == load)
            .unwrap_or(at);
        let ratios = self.seen[at].iter().zip(&self.seen[first]);
        let ratios = ratios.map(|(own, first)| own.requests_per_second / first.requests_per_second);
        self.rows[at].ratio = median(ratios.filter(|ratio| ratio.is_finite()).collect());
    }

    /// The rows of one target, in the order of the loads.
    pub(super) fn of<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.target == target)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_background = self
            .rows
            .iter()
            .any(|row| row.figures.background_tokens_per_second > 0.0);
        let width = self
            .rows
            .iter()
            .map(|row| row.target.len())
            .max()
            .unwrap_or(0)
            .max(6);
        write!(
            f,
            "{:<width$}  {:<18} {:>9} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
            "target",
            "load",
            "req/s",
            "ratio",
            "inputs/s",
            "tokens/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            "refused/s",
            "errors"
        )?;
        if has_background {
            write!(f, " {:>14}", "bulk tokens/s")?;
        }
        for row in &self.rows {
            let figures = &row.figures;
            write!(
                f,
                "\n{:<width$}  {:<18} {:>9.1} {:>6.2} {:>9.1} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>7.0}",
                row.target,
                row.load,
                figures.requests_per_second,
                row.ratio,
                figures.inputs_per_second,
                figures.tokens_per_second,
                figures.p50_ms,
                figures.p90_ms,
                figures.p99_ms,
                figures.max_ms,
                figures.refused_per_second,
                figures.errors,
            )?;
            if has_background {
                write!(f, " {:>14.0}", figures.background_tokens_per_second)?;
            }
            if figures.refused_per_second > 0.0 {
                write!(f, "  (refusals p99 {:.2} ms)", figures.refused_p99_ms)?;
            }
            if figures.unsent > 0.0 {
                write!(
                    f,
                    "  ({:.0} unsent: the client was the limit)",
                    figures.unsent
                )?;
            }
        }
        Ok(())
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
