//! Attention of plain operators, which every device has.

use embedgate_core::EncoderConfig;

use crate::convert::{
    attributes::{int, ints},
    graph::Builder,
};

/// Added to the scores of padding in f16, which ends at 65504.
const LOWEST_F16: f32 = -60_000.0;

/// The scores of the longest sequence of a model, on a card, have room in so many bytes: buffers of 2 GiB and more are not
/// everywhere.
const MOST_SCORES: usize = 1 << 30;
/// The constants of plain operators.
pub(in crate::convert) struct Plain {
    /// `(batch, length, heads, head)` from `(batch, length, width)`.
    by_head: String,
    /// `(batch, length, width)` from `(batch, length, heads, head)`.
    joined: String,
    /// Added to the scores: 0 for tokens, the lowest number for padding. Shape `(batch, 1, 1, length)`.
    mask: String,
    /// Heads are worked on in so many groups, one after the other.
    groups: usize,
}

/// The fewest groups of heads whose scores have room; they divide the heads.
pub(super) fn groups(b: &Builder<'_, '_>, config: &EncoderConfig) -> usize {
    let number = if b.variant.is_half() { 2 } else { 4 };
    let of_head = config.max_sequence_tokens.pow(2) * number;
    let n_heads = config.attention.n_heads;
    let fits = |groups: &usize| {
        let heads = n_heads / groups;
        n_heads.is_multiple_of(*groups) && heads * of_head <= MOST_SCORES
    };
    (1..=n_heads).find(fits).unwrap_or(n_heads)
}

impl Plain {
    /// Adds the constants that all layers share.
    pub(super) fn new(
        b: &mut Builder<'_, '_>,
        config: &EncoderConfig,
        mask: &str,
        groups: usize,
    ) -> Self {
        let attention = &config.attention;
        let by_head = [0, 0, attention.n_heads as i64, attention.head_size as i64];
        let joined = [0, 0, config.hidden_size as i64];
        Self {
            by_head: b.tensors.ints("shape_by_head", &by_head, &[4]),
            joined: b.tensors.ints("shape_joined", &joined, &[3]),
            mask: score_mask(b, mask),
            groups,
        }
    }

    /// Adds the attention of a layer, of shape `(batch, length, width)`.
    pub(super) fn attend(&self, b: &mut Builder<'_, '_>, [query, key, value]: [&str; 3]) -> String {
        let query = self.heads(b, query, &[0, 2, 1, 3]);
        let key = self.heads(b, key, &[0, 2, 3, 1]);
        let value = self.heads(b, value, &[0, 2, 1, 3]);
        let contexts: Vec<String> = (0..self.groups)
            .map(|i| {
                let scores = b.node("MatMul", &[&query[i], &key[i]], vec![]);
                let scores = b.node("Add", &[&scores, &self.mask], vec![]);
                let shares = b.node("Softmax", &[&scores], vec![int("axis", -1)]);
                b.node("MatMul", &[&shares, &value[i]], vec![])
            })
            .collect();
        let context = match &contexts[..] {
            [only] => only.clone(),
            several => {
                let several: Vec<&str> = several.iter().map(String::as_str).collect();
                b.node("Concat", &several, vec![int("axis", 1)])
            }
        };
        let context = b.node("Transpose", &[&context], vec![ints("perm", &[0, 2, 1, 3])]);
        b.node("Reshape", &[&context, &self.joined], vec![])
    }

    /// Rows by heads, with their axes in this order, in groups.
    fn heads(&self, b: &mut Builder<'_, '_>, rows: &str, order: &[i64]) -> Vec<String> {
        let rows = b.node("Reshape", &[rows, &self.by_head], vec![]);
        let rows = b.node("Transpose", &[&rows], vec![ints("perm", order)]);
        b.split(&rows, 1, self.groups)
    }
}

/// The numbers that are added to the scores of each key: 0 for tokens, the lowest number for padding. Shape `(batch, 1, 1, length)`.
fn score_mask(b: &mut Builder<'_, '_>, mask: &str) -> String {
    let lowest = if b.variant.is_half() {
        LOWEST_F16
    } else {
        f32::MIN
    };
    let axes = b.tensors.ints("mask_axes", &[1, 2], &[2]);
    let mask = b.cast_to_numbers(mask);
    let mask = b.node("Unsqueeze", &[&mask, &axes], vec![]);
    let one = b.tensors.float("one_number", 1.0);
    let padding = b.node("Sub", &[&one, &mask], vec![]);
    let lowest = b.tensors.float("lowest_number", lowest);
    b.node("Mul", &[&padding, &lowest], vec![])
}
