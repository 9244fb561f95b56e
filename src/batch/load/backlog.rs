//! The tokens that wait or run, by lane and by short and long inputs: what is ahead of who comes in.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use embedgate_request::Lane;

/// The tokens of the inputs that wait or run.
#[derive(Default)]
pub(super) struct Backlog {
    /// Inputs of up to so many tokens do not wait for the end of longer ones.
    most_beside: AtomicUsize,
    /// Tokens by lane, then of short and of long inputs. They are estimated until they are known.
    tokens: [[AtomicU64; 2]; 2],
}

/// The record of a counted input: the bound between short and long may change meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) lane: Lane,
    tokens: usize,
    is_long: bool,
}

impl Backlog {
    /// Inputs of up to so many tokens go beside longer ones from now on.
    pub(super) fn set_most_beside(&self, tokens: usize) {
        self.most_beside.store(tokens, Ordering::Relaxed);
    }

    /// Counts an input.
    pub(super) fn add(&self, lane: Lane, tokens: usize) -> Counted {
        let is_long = self.is_long(tokens);
        let counted = Counted {
            lane,
            tokens,
            is_long,
        };
        self.count(counted)
            .fetch_add(tokens as u64, Ordering::Relaxed);
        counted
    }

    /// Counts an input no more.
    pub(super) fn give_back(&self, counted: Counted) {
        self.count(counted)
            .fetch_sub(counted.tokens as u64, Ordering::Relaxed);
    }

    /// Returns the tokens that an input of `tokens` tokens would wait for.
    pub(super) fn ahead_of(&self, lane: Lane, tokens: usize) -> u64 {
        let of = |lane: Lane| {
            let [short, long] = &self.tokens[lane as usize];
            [short, long].map(|tokens| tokens.load(Ordering::Relaxed))
        };
        let ([queries, long_queries], [bulk, long_bulk]) = (of(Lane::Query), of(Lane::Bulk));
        // Beside a long batch others have half of the time.
        let beside = |tokens: u64, long: u64| tokens + tokens.min(long);
        match (lane, self.is_long(tokens)) {
            (Lane::Query, false) => beside(queries, long_queries + long_bulk),
            (Lane::Query, true) => queries + long_queries,
            (Lane::Bulk, false) => beside(queries + bulk, long_bulk) + long_queries,
            (Lane::Bulk, true) => queries + long_queries + bulk + long_bulk,
        }
    }

    /// Returns the tokens of a lane's inputs.
    pub(super) fn of(&self, lane: Lane) -> u64 {
        let tokens = self.tokens[lane as usize].iter();
        tokens.map(|tokens| tokens.load(Ordering::Relaxed)).sum()
    }

    /// Returns the tokens of all inputs.
    pub(super) fn total(&self) -> u64 {
        Lane::ALL.into_iter().map(|lane| self.of(lane)).sum()
    }

    fn is_long(&self, tokens: usize) -> bool {
        tokens > self.most_beside.load(Ordering::Relaxed)
    }

    fn count(&self, counted: Counted) -> &AtomicU64 {
        &self.tokens[counted.lane as usize][usize::from(counted.is_long)]
    }
}
