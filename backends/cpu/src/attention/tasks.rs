//! The tasks of attention: which queries of a sequence go together, and how many tasks make a step.
//!
//! It decides alone: nothing is computed here.

use std::ops::Range;

use embedgate_core::TokenSelection;

use super::QUERIES;

/// Some queries of one sequence.
pub(super) struct Queries {
    /// Rows of all sequences.
    pub(super) rows: Range<usize>,
    pub(super) sequence: Range<usize>,
}

impl Queries {
    /// Returns the number of pairs of a query and a key.
    pub(super) fn pairs(&self) -> usize {
        self.rows.len() * self.sequence.len()
    }
}

/// Tasks of a head for each thread, at least: so that none waits long for the last.
const TASKS: usize = 4;

/// Pairs of a query and a key in a step, at most: of heads of 64 numbers 34 billion operations, which is what
/// 1024 rows of a layer of bge-m3 take.
const STEP_PAIRS: usize = 1 << 27;

/// Returns the number of these tasks that make a step: all threads get some, however large they are.
pub(super) fn in_a_step(pairs: impl Iterator<Item = usize>, threads: usize) -> usize {
    let mut sum = 0;
    let fitting = pairs.enumerate().take_while(|(i, pairs)| {
        sum += pairs;
        *i < 2 * threads || sum <= STEP_PAIRS
    });
    fitting.count()
}

/// Tiles of a long sequence that stay together in any case: the keys of 8192 tokens take 1 ms to copy, so many tiles 10.
const LEAST_TOGETHER: usize = 8;

/// Cuts the wanted queries of all sequences into tasks, for so many heads and threads.
pub(super) fn queries(
    offsets: &[usize],
    selection: TokenSelection,
    n_heads: usize,
    threads: usize,
) -> Vec<Queries> {
    let wanted = |ends: &[usize]| selection.of(ends[0]..ends[1]);
    let tiles_of = |ends: &[usize]| wanted(ends).len().div_ceil(QUERIES);
    let n_tiles: usize = offsets.windows(2).map(tiles_of).sum();
    // Tiles of one sequence stay together where there are tasks enough without parting them.
    let together = (n_tiles * n_heads / (TASKS * threads)).max(1);
    let mut all = Vec::new();
    for ends in offsets.windows(2) {
        let rows = wanted(ends);
        // A step has two tasks for each thread.
        let in_a_step = STEP_PAIRS / (2 * threads * QUERIES * (ends[1] - ends[0]).max(1));
        let together = together.min(in_a_step.max(LEAST_TOGETHER));
        for first in rows.clone().step_by(together * QUERIES) {
            all.push(Queries {
                rows: first..rows.end.min(first + together * QUERIES),
                sequence: ends[0]..ends[1],
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_short_unless_threads_would_be_idle() {
        let of =
            |pairs: usize, tasks, threads| in_a_step(std::iter::repeat_n(pairs, tasks), threads);
        assert_eq!(of(512 * 512, 16 * 8, 2), 16 * 8);
        assert_eq!(of(4096 * 4096, 16, 2), 8);
        assert_eq!(of(4096 * 8192, 32, 2), 4);
        assert_eq!(of(8192 * 8192, 3, 2), 3);
        assert_eq!(of(1024 * 8192, 16 * 8, 16), 32);
    }

    #[test]
    fn queries_of_all_sequences_are_taken_once_and_keep_every_thread_busy() {
        let rows = |offsets: &[usize], selection, n_heads, threads| -> Vec<Range<usize>> {
            let all = queries(offsets, selection, n_heads, threads);
            all.into_iter().map(|queries| queries.rows).collect()
        };
        assert_eq!(
            rows(&[0, 5, 300], TokenSelection::First, 16, 2),
            [0..1, 5..6]
        );
        assert_eq!(
            rows(&[0, 5, 300], TokenSelection::Last, 16, 2),
            [4..5, 299..300]
        );
        assert_eq!(
            rows(&[0, 5, 300], TokenSelection::All, 1, 8),
            [0..5, 5..133, 133..261, 261..300]
        );
        assert_eq!(
            rows(&[0, 5, 300], TokenSelection::All, 16, 2),
            [0..5, 5..300]
        );
        assert_eq!(
            rows(&[0, 4096], TokenSelection::All, 16, 2),
            std::slice::from_ref(&(0..4096))
        );
        assert_eq!(
            rows(&[0, 8192], TokenSelection::All, 16, 2),
            [0..4096, 4096..8192]
        );
        let of_many = rows(&[0, 8192], TokenSelection::All, 16, 32);
        assert_eq!((of_many.len(), of_many[0].clone()), (8, 0..1024));
    }
}
