//! The head of a SPLADE model: a weight for each token of the vocabulary. It computes in f32, whatever the encoder's precision.

use embedgate_core::{
    SparseVector,
    encoder::{EncoderConfig, LanguageHead},
    splade::SpladePooling,
};

use crate::{
    heads::Hidden,
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    vector::Norm,
};

/// Rows of logits that are held at once: of a vocabulary of 30,000 tokens they take 8 MiB.
const ROWS_AT_ONCE: usize = 4 * ROW_STEP;

/// The head of a masked language model, and the pooling of its logits.
pub(crate) struct Splade {
    pooling: SpladePooling,
    dense: Linear,
    norm: Norm,
    decoder: Linear,
}

impl Splade {
    /// Reads the layers under the names of their description.
    pub(crate) fn load(
        pooling: SpladePooling,
        head: &LanguageHead,
        config: &EncoderConfig,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let (dense, activation) = &head.dense;
        Ok(Self {
            pooling,
            dense: loader.exact_with(dense, Some(*activation))?,
            norm: loader.norm(&head.norm)?,
            decoder: loader.decoder(head, config)?,
        })
    }

    /// The weights of each sequence, of the rows of all tokens.
    pub(crate) fn weights(&self, hidden: Hidden<'_>) -> Result<Vec<SparseVector>, OneDnnError> {
        let (width, vocabulary) = (self.norm.width(), self.decoder.outer());
        let mut made = vec![0.0; hidden.rows.len()];
        self.dense
            .forward(Operand::F32(hidden.rows), Target::F32(&mut made))?;
        self.norm.apply(&mut made);
        let mut logits = vec![0.0; ROWS_AT_ONCE * vocabulary];
        let mut rows = vec![0.0; ROWS_AT_ONCE * width];
        let mut pooled = vec![0.0; vocabulary];
        let mut all = Vec::with_capacity(hidden.batch.len());
        for range in hidden.batch.ranges() {
            pooled.fill(0.0);
            for first in range.clone().step_by(ROWS_AT_ONCE) {
                let n = ROWS_AT_ONCE.min(range.end - first);
                let padded = n.next_multiple_of(ROW_STEP);
                let of_step = &mut rows[..padded * width];
                of_step[..n * width].copy_from_slice(&made[first * width..(first + n) * width]);
                of_step[n * width..].fill(0.0);
                let logits = &mut logits[..padded * vocabulary];
                self.decoder
                    .forward(Operand::F32(of_step), Target::F32(logits))?;
                self.pooling.add(&mut pooled, &logits[..n * vocabulary]);
            }
            all.push(self.pooling.finish(&pooled));
        }
        Ok(all)
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.dense.bytes() + self.decoder.bytes()
    }
}
