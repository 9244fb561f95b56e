//! The memory of attention, which each thread keeps from batch to batch.

use super::QUERIES;
use crate::{
    memory::resize,
    vector::{Rounded, Running},
};

/// The memory that one thread needs while it computes attention.
pub(crate) struct Scratch<T> {
    /// The queries of one head, back to back: the library is twice as fast on such rows as on rows that lie far apart.
    pub(super) queries: Vec<T>,
    pub(super) keys: Vec<T>,
    pub(super) values: Vec<T>,
    pub(super) scores: Vec<f32>,
    pub(super) powers: Vec<T>,
    /// The context vectors of one tile of keys, and of all tiles until now.
    pub(super) parts: [Vec<f32>; 2],
    pub(super) running: [Running; QUERIES],
    pub(super) corrections: [f32; QUERIES],
    /// The scores of a tile of queries, and of all keys, with what a layer makes of distances.
    pub(super) queries_by_distance: Vec<f32>,
    pub(super) keys_by_distance: Vec<f32>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self {
            queries: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            scores: Vec::new(),
            powers: Vec::new(),
            parts: [Vec::new(), Vec::new()],
            running: [Running::NONE; QUERIES],
            corrections: [0.0; QUERIES],
            queries_by_distance: Vec::new(),
            keys_by_distance: Vec::new(),
        }
    }
}

impl<T: Rounded> Scratch<T> {
    /// Makes room for tiles of so many queries and keys, and for all keys of a sequence.
    pub(super) fn grow(&mut self, queries: usize, keys: usize, all_keys: usize, head_size: usize) {
        let at_least = |numbers: &mut Vec<T>, n: usize| {
            numbers.resize(numbers.len().max(n), T::default());
        };
        let n = queries * keys;
        self.scores.resize(self.scores.len().max(n), 0.0);
        at_least(&mut self.powers, n);
        for part in &mut self.parts {
            part.resize(part.len().max(queries * head_size), 0.0);
        }
        at_least(&mut self.queries, queries * head_size);
        for numbers in [&mut self.keys, &mut self.values] {
            resize(numbers, all_keys * head_size);
        }
    }
}
