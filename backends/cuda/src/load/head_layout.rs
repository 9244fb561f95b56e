//! The layout of attention heads on the device.

use embedgate_core::EncoderConfig;

use super::LoadError;
use crate::linear::STEP;

/// The layout of attention heads: each head is padded to what kernels have, and heads of zeros make the row a multiple of
/// [`STEP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    /// The number of the model's heads; `size` is the count of numbers in one head.
    n: usize,
    size: usize,
    /// The number of heads on the device.
    pub(crate) n_padded: usize,
    pub(crate) size_padded: usize,
}

impl HeadLayout {
    /// The layout of a model's heads.
    ///
    /// # Errors
    /// When heads are larger than kernels have.
    pub(crate) fn of(config: &EncoderConfig) -> Result<Self, LoadError> {
        let size = config.attention.head_size;
        let padded = [32, 64, 128].into_iter().find(|padded| size <= *padded);
        let size_padded = padded.ok_or_else(|| {
            LoadError::Unfit(format!(
                "the model's attention heads have {size} numbers, the cuda backend takes 128 at most"
            ))
        })?;
        let mut n_padded = config.attention.n_heads;
        while !(n_padded * size_padded).is_multiple_of(STEP) {
            n_padded += 1;
        }
        Ok(Self {
            n: config.attention.n_heads,
            size,
            n_padded,
            size_padded,
        })
    }

    /// Numbers of a row on the device.
    pub(crate) fn width(self) -> usize {
        self.n_padded * self.size_padded
    }

    /// The place of a number of the model's row.
    pub(super) fn place(self, i: usize) -> usize {
        i / self.size * self.size_padded + i % self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(n: usize, size: usize) -> HeadLayout {
        let json = format!(
            r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": {}, "num_hidden_layers": 1, "num_attention_heads": {n},
                "intermediate_size": 8, "max_position_embeddings": 9}}"#,
            n * size
        );
        HeadLayout::of(&EncoderConfig::from_json(&json).unwrap()).unwrap()
    }

    #[test]
    fn heads_are_padded_to_what_kernels_have_and_their_rows_to_whole_tiles() {
        let padded = |n, size| {
            let heads = heads(n, size);
            (heads.n_padded, heads.size_padded)
        };
        assert_eq!(padded(16, 64), (16, 64));
        assert_eq!(padded(12, 32), (12, 32));
        assert_eq!(padded(12, 26), (12, 32));
        assert_eq!(padded(3, 16), (4, 32));
        assert_eq!(padded(2, 100), (2, 128));
        let heads = heads(12, 26);
        assert_eq!([0, 25, 26, 311].map(|i| heads.place(i)), [0, 25, 32, 377]);
        assert_eq!((heads.n, heads.width()), (12, 384));
    }
}
