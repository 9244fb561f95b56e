//! Remembers those who were refused and told to come back, so that those who are refused later come after them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Nobody is told to come back sooner: less is no pause for who sends without end.
const LEAST_RETRY: Duration = Duration::from_millis(250);
/// The time to come back is longer by up to this part, each time by another, so that not all come at once.
pub(super) const SPREAD: f64 = 0.1;
/// So many of those who were told to come back are remembered.
const MOST_PROMISES: usize = 4096;

/// The requests that were told to come back: when, and with how many tokens.
#[derive(Default)]
pub(super) struct Promises {
    all: VecDeque<(Instant, u64)>,
    /// Moves with each answer, so that no two get the same part of the spread.
    phase: u64,
}

impl Promises {
    /// Returns the time after which a refused request of `tokens` tokens may come in, where `wait` is its wait if no
    /// other request came. With no tokens, later requests do not wait for it.
    pub(super) fn retry_after(
        &mut self,
        wait: Duration,
        tokens: u64,
        rate: f64,
        now: Instant,
    ) -> Duration {
        self.all.retain(|(due, _)| *due > now);
        let before: u64 = self.all.iter().map(|(_, tokens)| tokens).sum();
        let before = Duration::try_from_secs_f64(before as f64 / rate).unwrap_or(Duration::MAX);
        let least = wait.saturating_add(before).max(LEAST_RETRY);
        let spread = least.as_secs_f64() * SPREAD * self.next_share();
        let spread = Duration::try_from_secs_f64(spread).unwrap_or_default();
        let after = least.saturating_add(spread);
        let due = now.checked_add(after);
        if let Some(due) = due.filter(|_| tokens > 0 && self.all.len() < MOST_PROMISES) {
            self.all.push_back((due, tokens));
        }
        after
    }

    /// A number from 0 to 1: evenly over time, and neighbours far apart.
    fn next_share(&mut self) -> f64 {
        // The golden ratio's multiples, modulo 1.
        self.phase = self.phase.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (self.phase >> 11) as f64 / (1_u64 << 53) as f64
    }
}
