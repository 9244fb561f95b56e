//! A report as a table for people.

use std::fmt;

use super::{Report, Row};
use crate::table::Table;

const HEAD: [&str; 12] = [
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
    "errors",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_background = self
            .rows
            .iter()
            .any(|row| row.figures.background_tokens_per_second > 0.0);
        let background = has_background.then_some("bulk tokens/s");
        let mut table = Table::new(HEAD.into_iter().chain(background)).left(2);
        for row in &self.rows {
            let tokens = row.figures.background_tokens_per_second;
            let background = has_background.then(|| format!("{tokens:.0}"));
            table.row(cells(row).into_iter().chain(background).chain(remarks(row)));
        }
        f.write_str(table.to_string().trim_end())
    }
}

fn cells(row: &Row) -> [String; 12] {
    let figures = &row.figures;
    [
        row.target.clone(),
        row.load.clone(),
        format!("{:.1}", figures.requests_per_second),
        format!("{:.2}", row.ratio),
        format!("{:.1}", figures.inputs_per_second),
        format!("{:.0}", figures.tokens_per_second),
        format!("{:.2}", figures.p50_ms),
        format!("{:.2}", figures.p90_ms),
        format!("{:.2}", figures.p99_ms),
        format!("{:.2}", figures.max_ms),
        format!("{:.1}", figures.refused_per_second),
        format!("{:.0}", figures.errors),
    ]
}

fn remarks(row: &Row) -> impl Iterator<Item = String> {
    let figures = row.figures;
    let refusals = (figures.refused_per_second > 0.0)
        .then(|| format!("(refusals p99 {:.2} ms)", figures.refused_p99_ms));
    let unsent = (figures.unsent > 0.0)
        .then(|| format!("({:.0} unsent: the client was the limit)", figures.unsent));
    refusals.into_iter().chain(unsent)
}
