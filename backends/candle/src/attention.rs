//! Attention within each packed sequence, a chunk of query rows at a time.

use candle_core::{D, Result, Tensor};

use crate::rows::Rows;

/// Scores held at once, over all heads: 16 Mi numbers are 64 MiB. A sequence of 8192 tokens and 16 heads goes in chunks
/// of 128 rows, where its whole score matrix would take 4 GiB.
const MAX_SCORES: usize = 16 << 20;
/// Chunks below this many rows waste the matrix product.
const MIN_ROWS: usize = 16;

/// Returns the context vectors of all tokens, shape `(tokens, width)`.
///
/// `qkv` has shape `(tokens, 3 * width)`: query (already scaled), key and value of each token. Sequence `i` is rows
/// `offsets[i]..offsets[i + 1]`.
pub(crate) fn attend(qkv: &Tensor, offsets: &[usize], n_heads: usize, how: Rows) -> Result<Tensor> {
    let mut contexts = Vec::new();
    for ends in offsets.windows(2) {
        let sequence = qkv.narrow(0, ends[0], ends[1] - ends[0])?;
        attend_sequence(&sequence, n_heads, how, &mut contexts)?;
    }
    Tensor::cat(&contexts, 0)
}

fn attend_sequence(
    qkv: &Tensor,
    n_heads: usize,
    how: Rows,
    contexts: &mut Vec<Tensor>,
) -> Result<()> {
    let (length, wide) = qkv.dims2()?;
    let width = wide / 3;
    // (length, 3, heads, head) -> 3 x (heads, length, head)
    let split = qkv
        .reshape((length, 3, n_heads, width / n_heads))?
        .permute((1, 2, 0, 3))?;
    let query = split.get(0)?.contiguous()?;
    let key = split.get(1)?.contiguous()?.t()?;
    let value = split.get(2)?.contiguous()?;
    let rows = (MAX_SCORES / (n_heads * length)).max(MIN_ROWS);
    for start in (0..length).step_by(rows) {
        let chunk = query.narrow(1, start, rows.min(length - start))?;
        let scores = how.softmax(chunk.matmul(&key)?)?;
        let context = scores.matmul(&value)?;
        contexts.push(context.transpose(0, 1)?.flatten_from(D::Minus2)?);
    }
    Ok(())
}
