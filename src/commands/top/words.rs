//! The figures in words: each with its name, and a table of the models.

use embedgate_metrics::{Figures, ModelFigures};
use embedgate_tools::table::Table;

/// The names of the columns of models.
pub(super) const COLUMNS: [&str; 6] = ["model", "state", "runs on", "tokens/s", "waiting", "MiB"];

/// Each figure with its name.
pub(super) fn named(figures: &Figures) -> Vec<(&'static str, String)> {
    let some = |figure: Option<f64>, unit: &str| match figure {
        Some(figure) => format!("{}{unit}", short(figure)),
        None => "-".into(),
    };
    let refused = figures.refused.iter();
    let refused: Vec<String> = refused
        .map(|(reason, n)| format!("{reason} {}", short(*n)))
        .collect();
    let [median, p95, p99] = figures.latency_ms.map(|ms| some(ms, " ms"));
    let [queries, bulk] = figures.waiting.map(short);
    vec![
        ("state", figures.state.clone()),
        ("requests/s", short(figures.requests_per_second)),
        ("p50, p95, p99", format!("{median}, {p95}, {p99}")),
        ("tokens/s", short(figures.tokens_per_second)),
        ("from the cache", some(figures.hit_percent, " %")),
        (
            "waiting inputs",
            format!("{queries} of queries, {bulk} of bulk"),
        ),
        (
            "time until done",
            format!("{} s", short(figures.backlog_seconds)),
        ),
        ("texts in a batch", some(figures.sequences_per_batch, "")),
        (
            "refused/s",
            match refused.as_slice() {
                [] => "-".into(),
                all => all.join(", "),
            },
        ),
        ("connections", short(figures.connections)),
        (
            "memory",
            format!(
                "{} MiB, of them the cache {}",
                short(figures.resident_mib),
                short(figures.cache_mib)
            ),
        ),
    ]
}

/// All of it as text: a line for each figure, and the table of models.
pub(super) fn as_text(figures: &Figures) -> String {
    let lines = named(figures).into_iter();
    let lines: String = lines
        .map(|(name, figure)| format!("{name:<18}{figure}\n"))
        .collect();
    let mut table = Table::new(COLUMNS).left(3);
    for model in &figures.models {
        table.row(cells(model));
    }
    format!("{lines}\n{table}")
}

/// The cells of a model's row.
pub(super) fn cells(model: &ModelFigures) -> [String; 6] {
    [
        model.name.clone(),
        model.state.clone(),
        model.runs_on.clone(),
        short(model.tokens_per_second),
        short(model.waiting),
        match model.memory_mib > 0.0 {
            true => short(model.memory_mib),
            false => "-".into(),
        },
    ]
}

/// A number with as many digits as one reads: 0.25, 12.5, 1234.
fn short(number: f64) -> String {
    match number.abs() {
        _ if number.fract() == 0.0 => format!("{number:.0}"),
        0.0..1.0 => format!("{number:.2}"),
        1.0..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of a server with some traffic.
    fn figures() -> Figures {
        Figures {
            state: "ready".into(),
            requests_per_second: 12.25,
            latency_ms: [Some(2.5), None, Some(40.0)],
            tokens_per_second: 1234.0,
            hit_percent: Some(75.0),
            waiting: [0.0, 7.0],
            backlog_seconds: 0.25,
            sequences_per_batch: None,
            refused: vec![("overloaded".into(), 4.0)],
            connections: 3.0,
            resident_mib: 100.4,
            cache_mib: 1.0,
            models: vec![ModelFigures {
                name: "m".into(),
                state: "ready".into(),
                runs_on: "cpu cpu int8".into(),
                tokens_per_second: 1234.0,
                waiting: 7.0,
                memory_mib: 0.0,
            }],
        }
    }

    #[test]
    fn every_figure_has_its_line() {
        let text = as_text(&figures());
        for line in [
            "requests/s        12.2",
            "p50, p95, p99     2.5 ms, -, 40 ms",
            "waiting inputs    0 of queries, 7 of bulk",
            "texts in a batch  -",
            "refused/s         overloaded 4",
            "memory            100 MiB, of them the cache 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn numbers_have_the_digits_that_one_reads() {
        for (number, expected) in [
            (0.0, "0"),
            (0.254, "0.25"),
            (12.52, "12.5"),
            (1234.4, "1234"),
        ] {
            assert_eq!(short(number), expected);
        }
    }
}
