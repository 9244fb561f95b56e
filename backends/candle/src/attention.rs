//! Attention within each packed sequence, a chunk of query rows at a time.

use std::{ops::Range, sync::Arc};

use candle_core::{D, DType, Device, Result, Tensor};
use embedgate_core::encoder::{self, DistanceValues, DistanceVectors, Reach};

use crate::rows::Rows;

/// Scores held at once, over all heads: 16 Mi numbers are 64 MiB. A sequence of 8192 tokens and 16 heads goes in chunks
/// of 128 rows, where its whole score matrix would take 4 GiB.
const MAX_SCORES: usize = 16 << 20;
/// Chunks below this many rows waste the matrix product.
const MIN_ROWS: usize = 16;
/// Chunks of sequences with a window see so few keys more than they need.
const WINDOW_ROWS: usize = 128;
/// Added to the scores of keys that are not seen; f16 ends at 65504.
const UNSEEN: f32 = -60_000.0;

/// The attention of a layer.
pub(crate) struct Attention {
    pub(crate) shape: encoder::Attention,
    pub(crate) reach: Reach,
    /// Numbers that are added to scores, by distance.
    pub(crate) bias: Option<Arc<DistanceValues>>,
    /// The keys and queries that the layer makes of distances, where attention has such.
    pub(crate) distances: Option<Distances>,
}

/// The keys and queries that a layer makes of distances, shape `(heads, rows of distances, head size)` both.
pub(crate) struct Distances {
    keys: Tensor,
    queries: Tensor,
}

impl Distances {
    /// Takes them of queries, then keys, of each row of distances.
    pub(crate) fn of(made: &Tensor, shape: &encoder::Attention) -> Result<Self> {
        let by_head = |first: usize| {
            let (rows, size) = (made.dim(0)?, shape.head_size);
            made.narrow(1, first, shape.query_width())?
                .reshape((rows, shape.n_heads, size))?
                .transpose(0, 1)?
                .contiguous()
        };
        Ok(Self {
            queries: by_head(0)?,
            keys: by_head(shape.query_width())?,
        })
    }

    /// Adds to the scores of some queries with some keys, each with its places in the sequence.
    fn add(
        &self,
        (vectors, rows): (&DistanceVectors, &[usize]),
        scores: Tensor,
        (query, queries): (&Tensor, Range<usize>),
        (key, keys): (&Tensor, Range<usize>),
    ) -> Result<Tensor> {
        // From the last token's distance to the first on.
        let longest = rows.len().div_ceil(2);
        let row = |query: usize, key: usize| rows[query + longest - 1 - key];
        let n_heads = query.dim(0)?;
        let gathered = |scored: Tensor, rows: Vec<i64>, shape: (usize, usize)| {
            let rows = Tensor::from_vec(rows, (1, shape.0, shape.1), scored.device())?;
            let rows = rows
                .broadcast_as((n_heads, shape.0, shape.1))?
                .contiguous()?;
            scored.contiguous()?.gather(&rows, 2)
        };
        let mut scores = scores;
        if vectors.has_keys {
            let at = |query: usize| keys.clone().map(move |key| row(query, key) as i64);
            let rows: Vec<i64> = queries.clone().flat_map(at).collect();
            let scored = query.matmul(&self.keys.t()?)?;
            scores = (scores + gathered(scored, rows, (queries.len(), keys.len()))?)?;
        }
        if vectors.has_queries {
            let at = |key: usize| queries.clone().map(move |query| row(query, key) as i64);
            let rows: Vec<i64> = keys.clone().flat_map(at).collect();
            let scored = key.matmul(&self.queries.t()?)?;
            let scored = gathered(scored, rows, (keys.len(), queries.len()))?;
            scores = (scores + scored.transpose(1, 2)?)?;
        }
        Ok(scores)
    }
}

impl Attention {
    /// Returns the context vectors of all tokens, shape `(tokens, heads * head size)`.
    ///
    /// `qkv` has shape `(tokens, qkv width)`: queries (already scaled), keys and values of each token. Sequence `i` is rows
    /// `offsets[i]..offsets[i + 1]`.
    pub(crate) fn attend(&self, qkv: &Tensor, offsets: &[usize], rows: Rows) -> Result<Tensor> {
        let mut contexts = Vec::new();
        for ends in offsets.windows(2) {
            let sequence = qkv.narrow(0, ends[0], ends[1] - ends[0])?;
            self.attend_sequence(&sequence, rows, &mut contexts)?;
        }
        Tensor::cat(&contexts, 0)
    }

    fn attend_sequence(&self, qkv: &Tensor, rows: Rows, contexts: &mut Vec<Tensor>) -> Result<()> {
        let (shape, length) = (&self.shape, qkv.dim(0)?);
        let (queries, keys) = (shape.query_width(), shape.key_width());
        let query = self.heads(qkv, 0..queries)?;
        let key = self.heads(qkv, queries..queries + keys)?;
        let value = self.heads(qkv, queries + keys..queries + 2 * keys)?;
        let mut at_once = (MAX_SCORES / (shape.n_heads * length)).max(MIN_ROWS);
        if !self.reach.is_all() {
            at_once = at_once.min(WINDOW_ROWS);
        }
        let vectors = shape.vectors.as_ref();
        let rows_of_distances = vectors.map_or_else(Vec::new, |vectors| vectors.rows(length));
        for start in (0..length).step_by(at_once) {
            let chunk = start..length.min(start + at_once);
            let seen =
                self.reach.of(chunk.start, length).start..self.reach.of(chunk.end - 1, length).end;
            let of_seen = |all: &Tensor| all.narrow(1, seen.start, seen.len());
            let of_chunk = query.narrow(1, chunk.start, chunk.len())?.contiguous()?;
            let mut scores = of_chunk.matmul(&of_seen(&key)?.t()?)?;
            if let (Some(distances), Some(vectors)) = (&self.distances, &shape.vectors) {
                let key = of_seen(&key)?.contiguous()?;
                scores = distances.add(
                    (vectors, &rows_of_distances),
                    scores,
                    (&of_chunk, chunk.clone()),
                    (&key, seen.clone()),
                )?;
            }
            let scores = match self.added(chunk, seen.clone(), length, qkv)? {
                Some(added) => scores.broadcast_add(&added)?,
                None => scores,
            };
            let context = rows.softmax(scores)?.matmul(&of_seen(&value)?)?;
            contexts.push(context.transpose(0, 1)?.flatten_from(D::Minus2)?);
        }
        Ok(())
    }

    /// Some columns of a sequence by heads of queries, shape `(heads, length, head size)`.
    fn heads(&self, qkv: &Tensor, columns: Range<usize>) -> Result<Tensor> {
        let (n_heads, size) = (self.shape.n_heads, self.shape.head_size);
        let (length, n) = (qkv.dim(0)?, columns.len() / size);
        let own = qkv
            .narrow(1, columns.start, columns.len())?
            .reshape((length, n, size))?
            .transpose(0, 1)?
            .contiguous()?;
        if n == n_heads {
            return Ok(own);
        }
        own.unsqueeze(1)?
            .broadcast_as((n, n_heads / n, length, size))?
            .reshape((n_heads, length, size))
    }

    /// Numbers that are added to the scores of some queries and keys, shape `(heads or 1, queries, keys)`; none where nothing is.
    fn added(
        &self,
        queries: Range<usize>,
        keys: Range<usize>,
        length: usize,
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        if self.reach.is_all() && self.bias.is_none() {
            return Ok(None);
        }
        let n_heads = if self.bias.is_some() {
            self.shape.n_heads
        } else {
            1
        };
        let mut added = Vec::with_capacity(n_heads * queries.len() * keys.len());
        for head in 0..n_heads {
            for query in queries.clone() {
                let seen = self.reach.of(query, length);
                added.extend(keys.clone().map(|key| match &self.bias {
                    _ if !seen.contains(&key) => UNSEEN,
                    Some(bias) => bias.of(head, query, key),
                    None => 0.0,
                }));
            }
        }
        let shape = (n_heads, queries.len(), keys.len());
        let added = Tensor::from_vec(added, shape, &Device::Cpu)?;
        let (format, device): (DType, _) = (like.dtype(), like.device());
        added.to_dtype(format)?.to_device(device).map(Some)
    }
}
