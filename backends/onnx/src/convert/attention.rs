//! Attention, in the form that the device has.

mod plain;

use embedgate_core::{EncoderConfig, encoder::Linear};

use self::plain::{Plain, groups};
use super::{
    ConvertError, Target,
    attributes::{float, int},
    graph::Builder,
    products::{Computed, computed},
};
use crate::proto::element;

type Result<T> = std::result::Result<T, ConvertError>;
/// The form of attention of all layers, with the values that they share.
pub(super) enum Attention {
    /// On the processor, in one of two ways: without padding by ONNX Runtime's own operator, which never holds all scores
    /// (for 8192 tokens and 16 heads they take 4 GiB); else by plain ones, for short sequences that share a call.
    Either {
        plain: Plain,
        /// True where the batch has no padding. A scalar.
        unpadded: String,
    },
    /// By plain operators. ONNX Runtime's own gives wrong numbers on WebGPU for 32 tokens and more, on some cards: seen with
    /// version 0.4.0 of the plugin on SwiftShader; see its pull request 28520 for others.
    Plain(Plain),
    /// Attention of rows without padding, by an operator that CUDA alone has.
    Packed {
        /// The place that each row came from. Shape `(batch, length)`.
        offsets: String,
        /// The first row of each sequence. Shape `(batch + 1)`.
        starts: String,
    },
}

impl Attention {
    /// Adds what all layers use, and returns the rows that they are to work on.
    pub(super) fn new(
        b: &mut Builder<'_, '_>,
        config: &EncoderConfig,
        mask: &str,
        rows: String,
    ) -> (Self, String) {
        let attention = match b.variant.target {
            Target::Cpu => Self::Either {
                unpadded: unpadded(b, mask),
                plain: Plain::new(b, config, mask, 1),
            },
            Target::Gpu => Self::Plain(Plain::new(b, config, mask, groups(b, config))),
            Target::CudaPacked => return Self::packed(b, mask, &rows),
        };
        (attention, rows)
    }

    fn packed(b: &mut Builder<'_, '_>, mask: &str, rows: &str) -> (Self, String) {
        let mask = b.node("Cast", &[mask], vec![int("to", element::INT32.into())]);
        let axes = b.tensors.ints("sum_axes", &[1], &[1]);
        let lengths = b.node("ReduceSum", &[&mask, &axes], vec![int("keepdims", 0)]);
        let name = b.contributed("RemovePadding", &[rows, &lengths], vec![]);
        let values = b.several(&name, 4);
        let [rows, offsets, starts] = [0, 1, 2].map(|i| values[i].clone());
        (Self::Packed { offsets, starts }, rows)
    }

    /// True where rows have no padding within the encoder.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self, Self::Packed { .. })
    }

    /// The rows as `(batch, length, width)`, padding included.
    pub(super) fn restored(&self, b: &mut Builder<'_, '_>, rows: String) -> String {
        match self {
            Self::Packed { offsets, .. } => {
                b.contributed("RestorePadding", &[&rows, offsets], vec![])
            }
            _ => rows,
        }
    }

    /// Adds the attention of a layer.
    pub(super) fn layer(
        &self,
        b: &mut Builder<'_, '_>,
        config: &EncoderConfig,
        qkv: &Linear,
        hidden: &str,
    ) -> Result<String> {
        let mut values = qkv.read(|name, shape| b.tensors.read(name, shape))?;
        values.scale_first(config.hidden_size, config.attention.scale);
        let name = format!("{}.qkv", qkv.name());
        let layer = Computed {
            name: &name,
            values,
        };
        let qkv = computed(b, hidden, layer)?;
        let parts = b.split(&qkv, -1, 3);
        let (query, key, value) = (&parts[0], &parts[1], &parts[2]);
        // The query was divided by the square root of the head size already.
        let attributes = || {
            vec![
                int("num_heads", config.attention.n_heads as i64),
                float("scale", 1.0),
            ]
        };
        Ok(match self {
            Self::Either { plain, unpadded } => {
                let flash = |b: &mut Builder<'_, '_>| {
                    b.contributed("MultiHeadAttention", &[query, key, value], attributes())
                };
                let plain = |b: &mut Builder<'_, '_>| plain.attend(b, [query, key, value]);
                b.either(unpadded, config.hidden_size, flash, plain)
            }
            Self::Plain(plain) => plain.attend(b, [query, key, value]),
            Self::Packed { offsets, starts } => {
                let inputs = [query, key, value, "", offsets, starts];
                b.contributed("PackedMultiHeadAttention", &inputs, attributes())
            }
        })
    }
}

/// True where the batch has no padding. A scalar.
fn unpadded(b: &mut Builder<'_, '_>, mask: &str) -> String {
    let least = b.node("ReduceMin", &[mask], vec![int("keepdims", 0)]);
    b.node("Cast", &[&least], vec![int("to", element::BOOL.into())])
}
