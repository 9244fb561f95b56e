//! Attention within each packed sequence, in tiles of queries and keys: the scores of a whole sequence are never held.
//! A task is one head of one sequence and some tiles of queries; it copies that head's keys and values together once.
//!
//! Source: Dao et al., "FlashAttention", 2022, for the order of tiles; here with the products of a library.

pub(crate) mod distances;
pub(crate) mod scratch;
mod tasks;
mod tile;

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use embedgate_core::{
    TokenSelection,
    encoder::{self, DistanceValues, Reach},
};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use self::{
    distances::{DistanceRows, Scoring, Tokens},
    scratch::Scratch,
    tasks::{Queries, in_a_step, queries},
    tile::Seen,
};
use crate::{
    compiled::Compiled,
    halt::{Halt, Pause},
    linear::ROW_STEP,
    onednn::{Format, Library, OneDnnError, Tile, tiles},
    vector::{Rounded, divide},
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
    shape: encoder::Attention,
    /// Numbers that are added to scores, by distance: in bits.
    bias: Option<DistanceValues>,
    /// Scores with what layers make of distances.
    scoring: Option<Scoring>,
    /// Queries by keys.
    scores: ByTile,
    /// Powers by values.
    contexts: ByTile,
}

type ByTile = [[Compiled; KEYS / KEY_STEP]; QUERIES / ROW_STEP];

/// The queries, keys and values of packed sequences, and the tokens whose context vectors are wanted.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a, T> {
    /// Shape `(rows, qkv width)`: queries (already scaled), keys and values of each token.
    pub(crate) qkv: &'a [T],
    /// Sequence `i` is rows `offsets[i]..offsets[i + 1]`.
    pub(crate) offsets: &'a [usize],
    pub(crate) selection: TokenSelection,
    /// The tokens that each token sees.
    pub(crate) reach: Reach,
    /// The keys and queries that the layer makes of distances, where attention has such.
    pub(crate) distances: Option<&'a DistanceRows<T>>,
}

/// One head of one sequence, and some of its queries.
#[derive(Clone, Copy)]
struct Task<'a> {
    /// The head's number.
    head: usize,
    queries: &'a Queries,
    reach: Reach,
}

/// Rows of a matrix.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    numbers: &'a [T],
    stride: usize,
}

impl Attention {
    /// Attention of this shape, in a format, for sequences of at most `longest` tokens; nothing is compiled yet. `bias` is what its
    /// own bias reads.
    pub(crate) fn new(
        library: &'static Library,
        format: Format,
        (shape, longest): (encoder::Attention, usize),
        bias: Option<DistanceValues>,
    ) -> Self {
        let vectors = shape.vectors.as_ref();
        Self {
            scoring: vectors.map(|vectors| Scoring::new(vectors, longest)),
            library,
            format,
            shape,
            bias,
            scores: ByTile::default(),
            contexts: ByTile::default(),
        }
    }

    /// Writes the context vectors of the wanted queries, which are some rows of each sequence, one after the other.
    ///
    /// `contexts` has rows of `width` numbers, at least as many as there are queries.
    pub(crate) fn attend<T: Rounded>(
        &self,
        packed: Packed<'_, T>,
        contexts: &mut [T],
        scratch: &[Mutex<Scratch<T>>],
        pause: &mut Pause<'_>,
    ) -> Result<(), Halt> {
        let (n_heads, size) = (self.shape.n_heads, self.shape.head_size);
        let Packed {
            qkv,
            offsets,
            selection,
            reach,
            distances,
        } = packed;
        let qkv = Rows {
            numbers: qkv,
            stride: self.shape.qkv_width(),
        };
        let queries = queries(offsets, selection, n_heads, scratch.len());
        let mut next = 0;
        let rows: Vec<Range<usize>> = queries
            .iter()
            .map(|queries| {
                next += queries.rows.len();
                next - queries.rows.len()..next
            })
            .collect();
        let heads: Vec<Range<usize>> = (0..n_heads)
            .map(|head| head * size..(head + 1) * size)
            .collect();
        let mut tiles = tiles(contexts, n_heads * size, &rows, &heads);
        let task = |i: usize| Task {
            head: i / queries.len(),
            queries: &queries[i % queries.len()],
            reach,
        };
        let mut first = 0;
        while !tiles.is_empty() {
            let pairs = (first..first + tiles.len()).map(|i| task(i).queries.pairs());
            let n = in_a_step(pairs, scratch.len());
            let later = tiles.split_off(n);
            let now = std::mem::replace(&mut tiles, later);
            now.into_par_iter()
                .zip(first..first + n)
                .try_for_each(|(mut tile, i)| {
                    let thread = rayon::current_thread_index().unwrap_or(0) % scratch.len();
                    let mut scratch = scratch[thread]
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    self.head((qkv, distances), task(i), &mut scratch, &mut tile)
                })?;
            first += n;
            pause()?;
        }
        Ok(())
    }

    /// The context vectors of one head and some queries.
    fn head<T: Rounded>(
        &self,
        (qkv, distances): (Rows<'_, T>, Option<&DistanceRows<T>>),
        task: Task<'_>,
        scratch: &mut Scratch<T>,
        contexts: &mut Tile<'_, T>,
    ) -> Result<(), OneDnnError> {
        let (shape, size, queries) = (&self.shape, self.shape.head_size, task.queries);
        let n = queries.sequence.len();
        let most_queries = QUERIES.min(queries.rows.len().next_multiple_of(ROW_STEP));
        let all_keys = n.next_multiple_of(KEY_STEP);
        scratch.grow(most_queries, KEYS.min(all_keys), all_keys, size);
        let columns = |start: usize, head: usize| start + head * size..start + (head + 1) * size;
        let key_head = task.head / (shape.n_heads / shape.n_key_heads);
        let first_key = shape.query_width();
        let first_value = first_key + shape.key_width();
        for (start, numbers) in [
            (first_key, &mut scratch.keys),
            (first_value, &mut scratch.values),
        ] {
            let rows = queries.sequence.clone();
            qkv.gather(rows, columns(start, key_head), numbers);
        }
        let scoring = self.scoring.as_ref().zip(distances);
        if let Some((scoring, rows)) = scoring {
            scoring.score(self, rows, (Tokens::Keys, task.head, all_keys), scratch)?;
        }
        for first in (0..queries.rows.len()).step_by(QUERIES) {
            let rows = queries.rows.start + first..queries.rows.end;
            let rows = rows.start..rows.end.min(rows.start + QUERIES);
            let n_queries = rows.len().next_multiple_of(ROW_STEP);
            let query = &mut scratch.queries[..n_queries * size];
            qkv.gather(rows.clone(), columns(0, task.head), query);
            if let Some((scoring, rows)) = scoring {
                let of_tile = (Tokens::Queries, task.head, n_queries);
                scoring.score(self, rows, of_tile, scratch)?;
            }
            let seen = Seen {
                head: task.head,
                queries: rows.start - queries.sequence.start..rows.end - queries.sequence.start,
                n,
                reach: task.reach,
            };
            self.tile(&seen, scratch)?;
            let (sum, running) = (&scratch.parts[1], &scratch.running[..rows.len()]);
            divide(&sum[..rows.len() * size], running, first, contexts);
        }
        Ok(())
    }
}

impl<T: Rounded> Rows<'_, T> {
    /// Copies some columns of some rows, back to back; what is left of `to` becomes zeros.
    fn gather(self, rows: Range<usize>, columns: Range<usize>, to: &mut [T]) {
        let (taken, rest) = to.split_at_mut(rows.len() * columns.len());
        for (row, to) in rows.zip(taken.chunks_exact_mut(columns.len())) {
            to.copy_from_slice(&self.numbers[row * self.stride..][columns.clone()]);
        }
        rest.fill(T::default());
    }
}
