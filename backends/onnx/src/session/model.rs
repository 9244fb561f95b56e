//! The data of a model outside its session, and the way from the session's outputs to rows of sequences.

use embedgate_core::{
    BackendError, BackendInfo, EmbeddingBatch, EncoderConfig, Matrix, Pooling, SparseVector,
    TokenBatch,
};
use ort::session::SessionOutputs;

use crate::{
    padded::{Expected, Padded, Rows},
    wiring::{Dense, Wiring},
};

/// The data of the model outside its session.
pub(super) struct Model {
    pub(super) info: BackendInfo,
    pub(super) pooling: Pooling,
    pub(super) special_token_ids: Vec<u32>,
    pub(super) encoder: EncoderConfig,
    pub(super) wiring: Wiring,
}

/// Sequences that go through the session in one call.
pub(super) struct Call<'a> {
    pub(super) batch: &'a TokenBatch,
    /// The places of the sequences in the batch.
    pub(super) class: &'a [usize],
    pub(super) padded: Padded,
}

impl Model {
    /// Copies the rows of each sequence to its place.
    pub(super) fn read(
        &self,
        outputs: &SessionOutputs<'_>,
        call: &Call<'_>,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let Call {
            batch,
            class,
            padded,
        } = call;
        let (length, width) = (padded.length, self.info.dimensions);
        let places = || class.iter().copied().enumerate();
        match (&mut results.dense, &self.wiring.dense) {
            (Some(dense), Some(Dense::Pooled(name))) => {
                let rows = Rows::of(outputs, name, Expected::Pooled { width })?;
                for (at, i) in places() {
                    dense.row_mut(i).copy_from_slice(rows.get(at, 0, 1)?);
                }
            }
            (Some(dense), Some(Dense::Tokens(name))) => {
                let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
                for (at, i) in places() {
                    self.pooling
                        .pool(rows.get(at, 0, padded.lengths[at])?, dense.row_mut(i));
                }
            }
            _ => {}
        }
        if let (Some(sparse), Some(name)) = (&mut results.sparse, &self.wiring.sparse) {
            let rows = Rows::of(outputs, name, Expected::Weights { length })?;
            for (at, i) in places() {
                let weights = rows.get(at, 0, padded.lengths[at])?;
                sparse[i] = SparseVector::from_token_weights(
                    batch.sequence(i).ids,
                    weights,
                    &self.special_token_ids,
                );
            }
        }
        if let (Some(multi), Some(name)) = (&mut results.multi_vector, &self.wiring.multi_vector) {
            let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
            // Some exports leave the first token out, as the reference does; others leave that to the caller.
            let first = usize::from(rows.length == length);
            for (at, i) in places() {
                multi[i] = Matrix {
                    data: rows.get(at, first, padded.lengths[at] - 1)?.to_vec(),
                    width,
                };
            }
        }
        if let (Some(tokens), Some(name)) = (&mut results.token_vectors, &self.wiring.tokens) {
            let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
            for (at, i) in places() {
                tokens[i] = Matrix {
                    data: rows.get(at, 0, padded.lengths[at])?.to_vec(),
                    width,
                };
            }
        }
        if let (Some(scores), Some(name)) = (&mut results.scores, &self.wiring.score) {
            let rows = Rows::of(outputs, name, Expected::Pooled { width: 1 })?;
            for (at, i) in places() {
                scores[i] = rows.get(at, 0, 1)?[0];
            }
        }
        Ok(())
    }
}
