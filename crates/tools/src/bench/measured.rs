//! The measurements of a target, and the outcomes of requests that they count.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::client::Reply;

/// Longest time that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// The measurements of one target under one load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Length of the measurement.
    pub seconds: f64,
    /// Times of good answers, in microseconds.
    pub times: Histogram<u64>,
    /// Times of refusals (429 and 503), in microseconds.
    pub refusals: Histogram<u64>,
    /// Inputs of good answers.
    pub inputs: u64,
    /// Tokens of good answers.
    pub tokens: u64,
    /// Answers of another status, and requests without an answer.
    pub errors: u64,
    /// Requests of an open loop that were not sent, for want of room in the client.
    pub unsent: u64,
}

impl Measured {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let times = || Histogram::new_with_bounds(1, LONGEST_US, 3);
        let times = || times().expect("the bounds are constants that are in order");
        Self {
            seconds: 0.0,
            times: times(),
            refusals: times(),
            inputs: 0,
            tokens: 0,
            errors: 0,
            unsent: 0,
        }
    }

    /// Counts the outcome of a request of so many inputs.
    pub(super) fn record(&mut self, outcome: Outcome, inputs: usize) {
        match outcome {
            Outcome::Good { us, tokens } => {
                self.times.saturating_record(us);
                self.inputs += inputs as u64;
                self.tokens += tokens;
            }
            Outcome::Refused { us } => self.refusals.saturating_record(us),
            Outcome::Failed => self.errors += 1,
        }
    }

    /// Adds what another client has measured.
    pub(super) fn merge(&mut self, other: &Self) {
        self.times += &other.times;
        self.refusals += &other.refusals;
        self.inputs += other.inputs;
        self.tokens += other.tokens;
        self.errors += other.errors;
        self.unsent += other.unsent;
    }
}

/// The outcome of one request; times in microseconds.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Good { us: u64, tokens: u64 },
    Refused { us: u64 },
    Failed,
}

impl Outcome {
    /// Judges a reply that took so long.
    pub(super) fn new(reply: &anyhow::Result<Reply>, time: Duration) -> Self {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        match reply {
            Ok(reply) if reply.status == 200 => Self::Good {
                us,
                tokens: reply.tokens(),
            },
            Ok(Reply {
                status: 429 | 503, ..
            }) => Self::Refused { us },
            Ok(_) | Err(_) => Self::Failed,
        }
    }
}
