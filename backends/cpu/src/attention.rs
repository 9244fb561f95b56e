//! Attention within each packed sequence, in tiles of queries and keys: the scores of a whole sequence are never held.
//!
//! Source: Dao et al., "FlashAttention", 2022, for the order of tiles; here with the products of a library.

use std::{
    ops::Range,
    sync::{Mutex, OnceLock, PoisonError},
};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::{
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

type ByTile = [[OnceLock<Result<Product, OneDnnError>>; KEYS / KEY_STEP]; QUERIES / ROW_STEP];

/// What one thread needs meanwhile.
pub(crate) struct Scratch<T> {
    /// Of one head, back to back: the library is twice as fast on those as on rows that lie far apart.
    queries: Vec<T>,
    keys: Vec<T>,
    values: Vec<T>,
    scores: Vec<f32>,
    powers: Vec<T>,
    /// Of one tile of keys, and of all until now.
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
    fn grow(&mut self, queries: usize, keys: usize, head_size: usize) {
        let n = queries * keys;
        if self.scores.len() < n {
            self.scores.resize(n, 0.0);
            self.powers.resize(n, T::default());
        }
        for part in &mut self.parts {
            part.resize(part.len().max(queries * head_size), 0.0);
        }
        let rows = [
            (&mut self.queries, queries),
            (&mut self.keys, keys),
            (&mut self.values, keys),
        ];
        for (numbers, rows) in rows {
            numbers.resize(numbers.len().max(rows * head_size), T::default());
        }
    }
}

/// Some queries of one sequence.
struct Queries {
    /// Rows of all sequences.
    rows: Range<usize>,
    sequence: Range<usize>,
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
    ) -> Result<(), OneDnnError> {
        let width = self.n_heads * self.head_size;
        let queries = queries(offsets, which);
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
        let tiles = tiles(contexts, width, &rows, &heads);
        tiles
            .into_par_iter()
            .enumerate()
            .try_for_each(|(i, mut tile)| {
                let (head, queries) = (i / queries.len(), &queries[i % queries.len()]);
                let thread = rayon::current_thread_index().unwrap_or(0) % scratch.len();
                let mut scratch = scratch[thread]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                self.tile(qkv, &heads[head], queries, &mut scratch, &mut tile)
            })
    }

    /// The context vectors of one head and some queries.
    fn tile<T: Rounded>(
        &self,
        qkv: &[T],
        head: &Range<usize>,
        queries: &Queries,
        scratch: &mut Scratch<T>,
        contexts: &mut Tile<'_, T>,
    ) -> Result<(), OneDnnError> {
        let (width, size) = (self.n_heads * self.head_size, self.head_size);
        let (rows, n_queries) = (
            queries.rows.len(),
            queries.rows.len().next_multiple_of(ROW_STEP),
        );
        let head = |part: usize| part * width + head.start..part * width + head.end;
        let most_keys = KEYS.min(queries.sequence.len().next_multiple_of(KEY_STEP));
        scratch.grow(n_queries, most_keys, size);
        let query = &mut scratch.queries[..n_queries * size];
        gather(qkv, 3 * width, queries.rows.clone(), head(0), query);
        let running = &mut scratch.running[..rows];
        running.fill(Running::NONE);
        let [part, sum] = &mut scratch.parts;
        for first in queries.sequence.clone().step_by(KEYS) {
            let n = KEYS.min(queries.sequence.end - first);
            let n_keys = n.next_multiple_of(KEY_STEP);
            let (keys, values) = (
                &mut scratch.keys[..n_keys * size],
                &mut scratch.values[..n_keys * size],
            );
            gather(qkv, 3 * width, first..first + n, head(1), keys);
            gather(qkv, 3 * width, first..first + n, head(2), values);
            let scores = &mut scratch.scores[..n_queries * n_keys];
            let powers = &mut scratch.powers[..n_queries * n_keys];
            let product = self.product(Step::Scores, n_queries, n_keys)?;
            product.run_view(query, keys, &mut Tile::whole(scores, n_keys))?;
            let corrections = &mut scratch.corrections[..rows];
            softmax(scores, n_keys, n, powers, running, corrections);
            let product = self.product(Step::Contexts, n_queries, n_keys)?;
            let is_first = first == queries.sequence.start;
            let into = if is_first { &mut *sum } else { &mut *part };
            let mut into = Tile::whole(&mut into[..n_queries * size], size);
            product.run_view(powers, values, &mut into)?;
            if !is_first {
                accumulate(&mut sum[..rows * size], part, corrections, size);
            }
        }
        divide(&sum[..rows * size], running, contexts);
        Ok(())
    }

    fn product(&self, step: Step, queries: usize, keys: usize) -> Result<&Product, OneDnnError> {
        let by_tile = match step {
            Step::Scores => &self.scores,
            Step::Contexts => &self.contexts,
        };
        let slot = &by_tile[queries / ROW_STEP - 1][keys / KEY_STEP - 1];
        let compiled = slot.get_or_init(|| {
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
        });
        compiled.as_ref().map_err(Clone::clone)
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
    /// Of each sequence the first.
    First,
}

fn queries(offsets: &[usize], which: Which) -> Vec<Queries> {
    let mut all = Vec::new();
    for ends in offsets.windows(2) {
        let sequence = ends[0]..ends[1];
        let end = match which {
            Which::All => sequence.end,
            Which::First => sequence.start + 1,
        };
        for first in (sequence.start..end).step_by(QUERIES) {
            all.push(Queries {
                rows: first..end.min(first + QUERIES),
                sequence: sequence.clone(),
            });
        }
    }
    all
}
