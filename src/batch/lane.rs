//! The entries of one lane: by the order of their requests, and by length within a window of those that are next.

use std::collections::{BTreeMap, BTreeSet};

use embedgate_request::Lane;

use super::cost::BatchShape;

/// The window holds the tokens of so many full batches: enough that neighbours in length are like, few enough that a request
/// ends soon after the ones before it.
const WINDOW_BATCHES: usize = 16;

/// The place of an entry: of its request, and within it.
type Place = (u64, u64);

/// An entry that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting<T> {
    pub lane: Lane,
    pub tokens: usize,
    /// The place of its request: requests of lower places go first.
    pub place: u64,
    /// The time when it came, in seconds.
    pub since: f64,
    pub payload: T,
}

/// The entries of one lane.
pub(super) struct LaneQueue<T> {
    entries: BTreeMap<Place, Waiting<T>>,
    /// By length: the entries up to `end`.
    window: BTreeSet<(usize, Place)>,
    /// By length: the entries after `end`.
    behind: BTreeSet<(usize, Place)>,
    /// The last place of the window.
    end: Place,
    /// Tokens of the window, of which those of one entry count as a full batch at most.
    window_tokens: usize,
    max_batch_tokens: usize,
    arrivals: u64,
}

impl<T> LaneQueue<T> {
    pub(super) fn new(max_batch_tokens: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            window: BTreeSet::new(),
            behind: BTreeSet::new(),
            end: (0, 0),
            window_tokens: 0,
            max_batch_tokens,
            arrivals: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tokens of the shortest entry.
    pub(super) fn shortest(&self) -> Option<usize> {
        let shortest = [&self.window, &self.behind].map(BTreeSet::first);
        let tokens = shortest.into_iter().flatten().map(|(tokens, _)| *tokens);
        tokens.min()
    }

    /// Since when the first entry waits.
    pub(super) fn first_since(&self) -> Option<f64> {
        let (_, first) = self.entries.first_key_value()?;
        Some(first.since)
    }

    /// Adds an entry after those of its request that are there.
    pub(super) fn push(&mut self, waiting: Waiting<T>) {
        self.arrivals += 1;
        let place = (waiting.place, self.arrivals);
        let key = (waiting.tokens, place);
        if place <= self.end {
            self.window.insert(key);
            self.window_tokens += self.weight(waiting.tokens);
        } else {
            self.behind.insert(key);
        }
        self.entries.insert(place, waiting);
    }

    /// Takes the first entry of no more than so many tokens out, and its neighbours in length, while `fits` holds of the batch
    /// and of what joins it.
    pub(super) fn take(
        &mut self,
        most_tokens: usize,
        fits: impl Fn(BatchShape, BatchShape) -> bool,
    ) -> Vec<T> {
        self.fill_window();
        let mut entries = self.entries.iter();
        let first = entries.find(|(_, waiting)| waiting.tokens <= most_tokens);
        let Some((place, waiting)) = first else {
            return Vec::new();
        };
        let first = (waiting.tokens, *place);
        let around = if *place <= self.end {
            &self.window
        } else {
            &self.behind
        };
        let picked = pick(around, first, fits);
        let taken = picked.into_iter().filter_map(|key| self.remove(key));
        taken.map(|waiting| waiting.payload).collect()
    }

    /// Removes the entries that a condition holds of, and returns them in order.
    pub(super) fn extract(&mut self, condition: impl Fn(&T) -> bool) -> Vec<Waiting<T>> {
        let found = self.entries.iter().filter(|(_, w)| condition(&w.payload));
        let keys: Vec<_> = found.map(|(place, w)| (w.tokens, *place)).collect();
        keys.into_iter()
            .filter_map(|key| self.remove(key))
            .collect()
    }

    fn remove(&mut self, key: (usize, Place)) -> Option<Waiting<T>> {
        if self.window.remove(&key) {
            self.window_tokens -= self.weight(key.0);
        } else {
            self.behind.remove(&key);
        }
        self.entries.remove(&key.1)
    }

    /// Returns the tokens that an entry counts for in the window. An entry that exceeds a batch goes alone, and has no
    /// neighbours.
    fn weight(&self, tokens: usize) -> usize {
        tokens.min(self.max_batch_tokens)
    }

    /// Moves the window on, once half of it is gone.
    fn fill_window(&mut self) {
        let most = self.max_batch_tokens.saturating_mul(WINDOW_BATCHES);
        if self.window_tokens > most / 2 {
            return;
        }
        let max_batch_tokens = self.max_batch_tokens;
        let next = self.entries.range((
            std::ops::Bound::Excluded(self.end),
            std::ops::Bound::Unbounded,
        ));
        for (place, waiting) in next {
            if self.window_tokens >= most {
                break;
            }
            let key = (waiting.tokens, *place);
            self.behind.remove(&key);
            self.window.insert(key);
            self.window_tokens += waiting.tokens.min(max_batch_tokens);
            self.end = *place;
        }
    }
}

/// The first entry and its neighbours in length, while `fits` holds of the batch and of what joins it.
fn pick(
    around: &BTreeSet<(usize, Place)>,
    first: (usize, Place),
    fits: impl Fn(BatchShape, BatchShape) -> bool,
) -> Vec<(usize, Place)> {
    let mut picked = vec![first];
    let mut shape = BatchShape::default().with(first.0);
    let mut shorter = around.range(..first).rev().peekable();
    let mut longer = around.range(first..).skip(1).peekable();
    loop {
        let distance = |key: Option<&&(usize, Place)>| {
            key.map_or(usize::MAX, |(tokens, _)| tokens.abs_diff(first.0))
        };
        let nearest = if distance(shorter.peek()) <= distance(longer.peek()) {
            shorter.next()
        } else {
            longer.next()
        };
        let Some(key) = nearest else {
            return picked;
        };
        if !fits(shape, BatchShape::default().with(key.0)) {
            return picked;
        }
        shape = shape.with(key.0);
        picked.push(*key);
    }
}
