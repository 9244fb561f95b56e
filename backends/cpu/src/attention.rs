//! Attention within each packed sequence, in tiles of queries and keys: the scores of a whole sequence are never held.
//! A task is one head of one sequence and some tiles of queries; it copies that head's keys and values together once.
//!
//! Source: Dao et al., "FlashAttention", 2022, for the order of tiles; here with the products of a library.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::{
    buffers::resize,
    compiled::Compiled,
    encoder::{Halt, Pause},
    linear::ROW_STEP,
    onednn::{Format, Library, OneDnnError, Product, Right, Shape, Tile, tiles},
    vector::{Rounded, Running, accumulate, divide, softmax},
};

/// Queries of a tile.
const QUERIES: usize = 128;
/// Keys of a tile: scores of 128 x 512 and their powers take 384 KiB.
const KEYS: usize = 512;
/// Products are compiled for multiples of this many keys.
const KEY_STEP: usize = 32;

/// Compiled products for every number of queries and keys in a tile.
pub(crate) struct Attention {
    library: &'static Library,
    format: Format,
    n_heads: usize,
    head_size: usize,
    /// Queries by keys.
    scores: ByTile,
    /// Powers by values.
    contexts: ByTile,
}

type ByTile = [[Compiled; KEYS / KEY_STEP]; QUERIES / ROW_STEP];

/// The memory that one thread needs while it computes attention.
pub(crate) struct Scratch<T> {
    /// The queries of one head, back to back: the library is twice as fast on such rows as on rows that lie far apart.
    queries: Vec<T>,
    keys: Vec<T>,
    values: Vec<T>,
    scores: Vec<f32>,
    powers: Vec<T>,
    /// The context vectors of one tile of keys, and of all tiles until now.
    parts: [Vec<f32>; 2],
    running: [Running; QUERIES],
    corrections: [f32; QUERIES],
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
        }
    }
}

impl<T: Rounded> Scratch<T> {
    /// Makes room for tiles of so many queries and keys, and for all keys of a sequence.
    fn grow(&mut self, queries: usize, keys: usize, all_keys: usize, head_size: usize) {
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

/// Some queries of one sequence.
struct Queries {
    /// Rows of all sequences.
    rows: Range<usize>,
    sequence: Range<usize>,
}

impl Queries {
    /// Returns the number of pairs of a query and a key.
    fn pairs(&self) -> usize {
        self.rows.len() * self.sequence.len()
    }
}

impl Attention {
    pub(crate) fn new(
        library: &'static Library,
        format: Format,
        n_heads: usize,
        head_size: usize,
    ) -> Self {
        Self {
            library,
            format,
            n_heads,
            head_size,
            scores: ByTile::default(),
            contexts: ByTile::default(),
        }
    }

    /// Writes the context vectors of `queries`, which are some rows of each sequence, one after the other.
    ///
    /// `qkv` has shape `(rows, 3 * width)`: query (already scaled), key and value of each token; sequence `i` is rows
    /// `offsets[i]..offsets[i + 1]`. `contexts` has rows of `width` numbers, at least as many as there are queries.
    pub(crate) fn attend<T: Rounded>(
        &self,
        qkv: &[T],
        offsets: &[usize],
        which: Which,
        contexts: &mut [T],
        scratch: &[Mutex<Scratch<T>>],
        pause: &mut Pause<'_>,
    ) -> Result<(), Halt> {
        let width = self.n_heads * self.head_size;
        let queries = queries(offsets, which, self.n_heads, scratch.len());
        let mut next = 0;
        let rows: Vec<Range<usize>> = queries
            .iter()
            .map(|queries| {
                next += queries.rows.len();
                next - queries.rows.len()..next
            })
            .collect();
        let heads: Vec<Range<usize>> = (0..self.n_heads)
            .map(|head| head * self.head_size..(head + 1) * self.head_size)
            .collect();
        let mut tiles = tiles(contexts, width, &rows, &heads);
        let task = |i: usize| (&heads[i / queries.len()], &queries[i % queries.len()]);
        let mut first = 0;
        while !tiles.is_empty() {
            let pairs = (first..first + tiles.len()).map(|i| task(i).1.pairs());
            let n = in_a_step(pairs, scratch.len());
            let later = tiles.split_off(n);
            let now = std::mem::replace(&mut tiles, later);
            now.into_par_iter()
                .zip(first..first + n)
                .try_for_each(|(mut tile, i)| {
                    let (head, queries) = task(i);
                    let thread = rayon::current_thread_index().unwrap_or(0) % scratch.len();
                    let mut scratch = scratch[thread]
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    self.head(qkv, head, queries, &mut scratch, &mut tile)
                })?;
            first += n;
            pause()?;
        }
        Ok(())
    }

    /// The context vectors of one head and some queries.
    fn head<T: Rounded>(
        &self,
        qkv: &[T],
        head: &Range<usize>,
        queries: &Queries,
        scratch: &mut Scratch<T>,
        contexts: &mut Tile<'_, T>,
    ) -> Result<(), OneDnnError> {
        let (width, size) = (self.n_heads * self.head_size, self.head_size);
        let n = queries.sequence.len();
        let most_queries = QUERIES.min(queries.rows.len().next_multiple_of(ROW_STEP));
        let all_keys = n.next_multiple_of(KEY_STEP);
        scratch.grow(most_queries, KEYS.min(all_keys), all_keys, size);
        let columns = |part: usize| part * width + head.start..part * width + head.end;
        for (part, numbers) in [(1, &mut scratch.keys), (2, &mut scratch.values)] {
            let rows = queries.sequence.clone();
            gather(qkv, 3 * width, rows, columns(part), numbers);
        }
        for first in (0..queries.rows.len()).step_by(QUERIES) {
            let rows = queries.rows.start + first..queries.rows.end;
            let rows = rows.start..rows.end.min(rows.start + QUERIES);
            let n_queries = rows.len().next_multiple_of(ROW_STEP);
            let query = &mut scratch.queries[..n_queries * size];
            gather(qkv, 3 * width, rows.clone(), columns(0), query);
            self.tile(rows.len(), n, scratch)?;
            let (sum, running) = (&scratch.parts[1], &scratch.running[..rows.len()]);
            divide(&sum[..rows.len() * size], running, first, contexts);
        }
        Ok(())
    }

    /// Sums up the values of `n` keys for so many queries, by powers of their scores.
    fn tile<T: Rounded>(
        &self,
        rows: usize,
        n: usize,
        scratch: &mut Scratch<T>,
    ) -> Result<(), OneDnnError> {
        let (size, n_queries) = (self.head_size, rows.next_multiple_of(ROW_STEP));
        let running = &mut scratch.running[..rows];
        running.fill(Running::NONE);
        let [part, sum] = &mut scratch.parts;
        for first in (0..n).step_by(KEYS) {
            let n = KEYS.min(n - first);
            let n_keys = n.next_multiple_of(KEY_STEP);
            let of_keys = first * size..(first + n_keys) * size;
            let keys = &scratch.keys[of_keys.clone()];
            let values = &scratch.values[of_keys];
            let query = &scratch.queries[..n_queries * size];
            let scores = &mut scratch.scores[..n_queries * n_keys];
            let powers = &mut scratch.powers[..n_queries * n_keys];
            let product = self.product(Step::Scores, n_queries, n_keys)?;
            product.run_view(query, keys, &mut Tile::whole(scores, n_keys))?;
            let corrections = &mut scratch.corrections[..rows];
            softmax(scores, n_keys, n, powers, running, corrections);
            let product = self.product(Step::Contexts, n_queries, n_keys)?;
            let into = if first == 0 { &mut *sum } else { &mut *part };
            let mut into = Tile::whole(&mut into[..n_queries * size], size);
            product.run_view(powers, values, &mut into)?;
            if first > 0 {
                accumulate(&mut sum[..rows * size], part, corrections, size);
            }
        }
        Ok(())
    }

    fn product(&self, step: Step, queries: usize, keys: usize) -> Result<&Product, OneDnnError> {
        let by_tile = match step {
            Step::Scores => &self.scores,
            Step::Contexts => &self.contexts,
        };
        let slot = &by_tile[queries / ROW_STEP - 1][keys / KEY_STEP - 1];
        slot.get_or(|| {
            let size = self.head_size;
            let (inner, columns, strides) = match step {
                Step::Scores => (size, keys, [1, size]),
                Step::Contexts => (keys, size, [size, 1]),
            };
            let shape = Shape {
                rows: queries,
                inner,
                columns,
                format: self.format,
                src_stride: inner,
                dst_format: Format::F32,
                dst_stride: columns,
                has_scales: false,
                has_bias: false,
                activation: None,
            };
            Product::new(self.library, shape, Right::Strided(strides))
        })
    }
}

/// Copies some columns of some rows, back to back; what is left of `to` becomes zeros.
fn gather<T: Rounded>(
    from: &[T],
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    to: &mut [T],
) {
    let (taken, rest) = to.split_at_mut(rows.len() * columns.len());
    for (row, to) in rows.zip(taken.chunks_exact_mut(columns.len())) {
        to.copy_from_slice(&from[row * stride..][columns.clone()]);
    }
    rest.fill(T::default());
}

/// Both products of a tile.
#[derive(Clone, Copy)]
enum Step {
    Scores,
    Contexts,
}

/// The tokens whose context vectors are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The first token of each sequence.
    First,
}

/// Tasks of a head for each thread, at least: so that none waits long for the last.
const TASKS: usize = 4;

/// Pairs of a query and a key in a step, at most: of heads of 64 numbers 34 billion operations, which is what
/// 1024 rows of a layer of bge-m3 take.
const STEP_PAIRS: usize = 1 << 27;

/// Returns the number of these tasks that make a step: all threads get some, however large they are.
fn in_a_step(pairs: impl Iterator<Item = usize>, threads: usize) -> usize {
    let mut sum = 0;
    let fitting = pairs.enumerate().take_while(|(i, pairs)| {
        sum += pairs;
        *i < 2 * threads || sum <= STEP_PAIRS
    });
    fitting.count()
}

/// Tiles of a long sequence that stay together in any case: the keys of 8192 tokens take 1 ms to copy, so many tiles 10.
const LEAST_TOGETHER: usize = 8;

fn queries(offsets: &[usize], which: Which, n_heads: usize, threads: usize) -> Vec<Queries> {
    let wanted = |ends: &[usize]| match which {
        Which::All => ends[0]..ends[1],
        Which::First => ends[0]..ends[0] + 1,
    };
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
        let rows = |offsets: &[usize], which, n_heads, threads| -> Vec<Range<usize>> {
            let all = queries(offsets, which, n_heads, threads);
            all.into_iter().map(|queries| queries.rows).collect()
        };
        assert_eq!(rows(&[0, 5, 300], Which::First, 16, 2), [0..1, 5..6]);
        assert_eq!(
            rows(&[0, 5, 300], Which::All, 1, 8),
            [0..5, 5..133, 133..261, 261..300]
        );
        assert_eq!(rows(&[0, 5, 300], Which::All, 16, 2), [0..5, 5..300]);
        assert_eq!(
            rows(&[0, 4096], Which::All, 16, 2),
            std::slice::from_ref(&(0..4096))
        );
        assert_eq!(rows(&[0, 8192], Which::All, 16, 2), [0..4096, 4096..8192]);
        let of_many = rows(&[0, 8192], Which::All, 16, 32);
        assert_eq!((of_many.len(), of_many[0].clone()), (8, 0..1024));
    }
}
