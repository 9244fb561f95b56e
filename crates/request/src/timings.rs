//! The time that one request spends in each step.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A step on the way of an input that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for a tokenizer thread and becomes tokens.
    Tokenize,
    /// It waits in the queue.
    Queue,
    /// Its batch runs.
    Compute,
}

/// The time that the inputs of one request spent in each step. Inputs that were cached, or that other requests compute,
/// spend nothing.
#[derive(Debug, Default)]
pub struct Timings {
    /// Nanoseconds of all inputs, by step.
    nanoseconds: [AtomicU64; 3],
    n_inputs: AtomicU64,
}

impl Timings {
    /// Adds what one input spent.
    pub fn add(&self, step: Step, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[step as usize].fetch_add(nanoseconds, Ordering::Relaxed);
        if step == Step::Tokenize {
            self.n_inputs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The mean of an input that was computed; zero where none was.
    #[must_use]
    pub fn mean(&self, step: Step) -> Duration {
        let sum = self.nanoseconds[step as usize].load(Ordering::Relaxed);
        let n = self.n_inputs.load(Ordering::Relaxed).max(1);
        Duration::from_nanos(sum / n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_with_its_mean_over_the_inputs_that_were_computed() {
        let timings = Timings::default();
        assert_eq!(timings.mean(Step::Compute), Duration::ZERO);
        for milliseconds in [2, 4] {
            timings.add(Step::Tokenize, Duration::from_millis(milliseconds));
            timings.add(Step::Compute, Duration::from_millis(10 * milliseconds));
        }
        assert_eq!(timings.mean(Step::Tokenize), Duration::from_millis(3));
        assert_eq!(timings.mean(Step::Compute), Duration::from_millis(30));
        assert_eq!(timings.mean(Step::Queue), Duration::ZERO);
    }
}
