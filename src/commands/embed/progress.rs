//! The progress of a long run, on standard error: one line that moves on a terminal, a line every ten seconds
//! elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

const ON_A_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Says how far a run is.
pub(super) struct Progress {
    started: Instant,
    said: Instant,
    is_terminal: bool,
    has_line: bool,
}

impl Progress {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            said: now,
            is_terminal: io::stderr().is_terminal(),
            has_line: false,
        }
    }

    /// Says it where it is time: rows that were embedded, and how much of the input was read in this run and how much is left.
    pub(super) fn tell(&mut self, n_rows: u64, read_and_left: Option<(u64, u64)>) {
        let pause = match self.is_terminal {
            true => ON_A_TERMINAL,
            false => ELSEWHERE,
        };
        if self.said.elapsed() < pause {
            return;
        }
        self.said = Instant::now();
        let line = line(n_rows, read_and_left, self.started.elapsed());
        // A terminal that is gone is told nothing.
        drop(match self.is_terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        });
        self.has_line = self.is_terminal;
    }

    /// Leaves the line that moves, so that others can follow.
    pub(super) fn end_line(&mut self) {
        if std::mem::take(&mut self.has_line) {
            drop(writeln!(io::stderr()));
        }
    }
}

fn line(n_rows: u64, read_and_left: Option<(u64, u64)>, elapsed: Duration) -> String {
    let rate = n_rows as f64 / elapsed.as_secs_f64().max(1e-3);
    let mut line = format!("{n_rows} rows, {rate:.0} rows/s");
    if let Some((read, left)) = read_and_left.filter(|(read, _)| *read > 0) {
        let share = read as f64 / (read + left) as f64;
        let seconds = elapsed.as_secs_f64() * left as f64 / read as f64;
        let seconds = Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX);
        line += &format!(
            ", {:.1} %, {} left",
            share * 100.0,
            humantime::format_duration(seconds)
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_rows_rate_share_and_time() {
        let ten = Duration::from_secs(10);
        assert_eq!(line(500, None, ten), "500 rows, 50 rows/s");
        assert_eq!(
            line(500, Some((100, 1100)), ten),
            "500 rows, 50 rows/s, 8.3 %, 1m 50s left"
        );
        assert_eq!(line(0, Some((0, 10)), ten), "0 rows, 0 rows/s");
    }
}
