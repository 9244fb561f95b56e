//! Keys and queries of distances, and the scores of tokens with them.

use embedgate_core::encoder::{self, DistanceVectors, EncoderConfig};
use half::bf16;

use super::{Attention, QUERIES, scratch::Scratch};
use crate::{
    compiled::Compiled,
    linear::{Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    memory::resize,
    onednn::{Format, OneDnnError, Product, Right, Shape, Tile},
    precision::operands,
    vector::Rounded,
};

/// The vectors of a model by distance, which each layer makes keys and queries of.
pub(crate) struct DistanceTable {
    /// Normalized, shape `(rows, width)`; zeros behind the last, up to a multiple of [`ROW_STEP`].
    vectors: Vec<f32>,
    n_rows: usize,
}

impl DistanceTable {
    /// Reads the vectors; none where attention has none.
    pub(crate) fn load(
        config: &EncoderConfig,
        loader: &Loader<'_>,
    ) -> Result<Option<Self>, LoadError> {
        let Some(vectors) = &config.attention.vectors else {
            return Ok(None);
        };
        let DistanceVectors { table, norm, .. } = vectors;
        let (rows, width) = (table.rows, config.hidden_size);
        let mut vectors = loader.numbers(&table.name, &[rows, width])?;
        if let Some(norm) = norm {
            loader.norm(norm)?.apply(&mut vectors);
        }
        let n_rows = rows.next_multiple_of(ROW_STEP);
        vectors.resize(n_rows * width, 0.0);
        Ok(Some(Self { vectors, n_rows }))
    }
}

/// The keys and queries that one layer makes of distances.
pub(crate) enum LayerDistances {
    F32(DistanceRows<f32>),
    Bf16(DistanceRows<bf16>),
}

/// Shape `(heads, rows, head size)` both.
pub(crate) struct DistanceRows<T> {
    keys: Vec<T>,
    queries: Vec<T>,
}

impl LayerDistances {
    /// Makes keys and queries with a layer's own projections.
    pub(crate) fn load(
        table: &DistanceTable,
        layer: &encoder::Layer,
        attention: &encoder::Attention,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let linear = loader.query_key(layer, attention)?;
        let mut made = vec![0.0; table.n_rows * linear.outer()];
        linear.forward(Operand::F32(&table.vectors), Target::F32(&mut made))?;
        Ok(match operands(loader.activations) {
            Format::F32 => Self::F32(DistanceRows::of(&made, attention, table.n_rows)),
            _ => Self::Bf16(DistanceRows::of(&made, attention, table.n_rows)),
        })
    }

    /// Returns the size of the rows, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(rows) => 2 * size_of_val(&rows.keys[..]),
            Self::Bf16(rows) => 2 * size_of_val(&rows.keys[..]),
        }
    }
}

impl<T: Rounded> DistanceRows<T> {
    /// `made` has queries, then keys, of each distance.
    fn of(made: &[f32], attention: &encoder::Attention, n_rows: usize) -> Self {
        let (n_heads, size) = (attention.n_heads, attention.head_size);
        let stride = made.len() / n_rows;
        let by_head = |first: usize| {
            let heads = (0..n_heads).map(move |head| first + head * size);
            let rows = heads.flat_map(|column| (0..n_rows).map(move |row| row * stride + column));
            let rows = rows.flat_map(|at| &made[at..at + size]);
            rows.map(|x| T::from_f32(*x)).collect()
        };
        Self {
            queries: by_head(0),
            keys: by_head(attention.query_width()),
        }
    }
}

/// The rows of distances, and how tokens are scored with them.
pub(super) struct Scoring {
    vectors: DistanceVectors,
    /// The row of each distance, from `1 - longest` to `longest - 1`.
    rows: Vec<usize>,
    longest: usize,
    /// Products of queries, or of keys, with all rows, by the steps of their number.
    products: [Compiled; QUERIES / ROW_STEP],
}

/// The tokens that are scored with distances.
#[derive(Clone, Copy)]
pub(super) enum Tokens {
    /// All keys of a sequence, with the queries of distances.
    Keys,
    /// A tile of queries, with the keys of distances.
    Queries,
}

/// Some rows of one head, queries or keys, and what they are scored with.
struct Scored<'a, T> {
    tokens: &'a [T],
    of_distances: &'a [T],
    /// As many columns as there are rows of distances.
    scores: &'a mut Vec<f32>,
    /// False: the model scores these with nothing, which is 0.
    is_scored: bool,
}

impl Scoring {
    /// Sequences have at most `longest` tokens.
    pub(super) fn new(vectors: &DistanceVectors, longest: usize) -> Self {
        Self {
            rows: vectors.rows(longest),
            vectors: vectors.clone(),
            longest,
            products: Default::default(),
        }
    }

    /// Columns of scores.
    fn columns(&self) -> usize {
        self.vectors.table.rows.next_multiple_of(ROW_STEP)
    }

    /// Scores the first `n` rows of one head, which are in `scratch`, with what the layer makes of distances.
    pub(super) fn score<T: Rounded>(
        &self,
        attention: &Attention,
        rows: &DistanceRows<T>,
        (what, head, n): (Tokens, usize, usize),
        scratch: &mut Scratch<T>,
    ) -> Result<(), OneDnnError> {
        let size = attention.shape.head_size;
        let numbers = self.columns() * size;
        let of_head = head * numbers..(head + 1) * numbers;
        let scored = match what {
            Tokens::Keys => Scored {
                tokens: &scratch.keys[..n * size],
                of_distances: &rows.queries[of_head],
                scores: &mut scratch.keys_by_distance,
                is_scored: self.vectors.has_queries,
            },
            Tokens::Queries => Scored {
                tokens: &scratch.queries[..n * size],
                of_distances: &rows.keys[of_head],
                scores: &mut scratch.queries_by_distance,
                is_scored: self.vectors.has_keys,
            },
        };
        self.multiply(attention, scored)
    }

    fn multiply<T: Rounded>(
        &self,
        attention: &Attention,
        scored: Scored<'_, T>,
    ) -> Result<(), OneDnnError> {
        let Scored {
            tokens,
            of_distances,
            scores,
            is_scored,
        } = scored;
        let (size, columns) = (attention.shape.head_size, self.columns());
        resize(scores, tokens.len() / size * columns);
        if !is_scored {
            scores.fill(0.0);
            return Ok(());
        }
        let blocks = tokens.chunks(QUERIES * size);
        for (tokens, scores) in blocks.zip(scores.chunks_mut(QUERIES * columns)) {
            let rows = tokens.len() / size;
            let product = self.products[rows / ROW_STEP - 1].get_or(|| {
                let shape = Shape {
                    rows,
                    inner: size,
                    columns,
                    format: attention.format,
                    src_stride: size,
                    dst_format: Format::F32,
                    dst_stride: columns,
                    has_scales: false,
                    has_bias: false,
                    activation: None,
                };
                Product::new(attention.library, shape, Right::Strided([1, size]))
            })?;
            let mut scores = Tile::whole(scores, columns);
            product.run_view(tokens, of_distances, &mut scores)?;
        }
        Ok(())
    }

    /// Adds to the scores of one query: `of_query` are its scores with distances, `of_keys` those of all keys. `row` begins with
    /// the key at place `first`.
    pub(super) fn add(
        &self,
        row: &mut [f32],
        (query, first): (usize, usize),
        (of_query, of_keys): (&[f32], &[f32]),
    ) {
        let columns = self.columns();
        let of_query = &of_query[..columns];
        let keys = of_keys[first * columns..].chunks_exact(columns);
        // From the first key on distances fall.
        let last = query + self.longest - first;
        let rows = self.rows[..last].iter().rev();
        for ((score, of_key), at) in row.iter_mut().zip(keys).zip(rows) {
            *score += of_query[*at] + of_key[*at];
        }
    }
}
