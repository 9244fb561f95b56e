//! A report as a table for people.

use std::fmt;

use super::Report;

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
