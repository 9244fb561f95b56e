//! The data of a model outside its session, and the way from the session's outputs to rows of sequences.

use embedgate_core::{
    BackendError, BackendInfo, Column, EmbeddingBatch, EncoderConfig, Head, HeadForm, Matrix,
    Pooling, SparseVector, TokenBatch,
};
use ort::session::SessionOutputs;

use crate::{
    padded::{Expected, Padded, Rows},
    wiring::{HeadTensor, Wiring},
};

/// The data of the model outside its session.
pub(super) struct Model {
    pub(super) info: BackendInfo,
    /// Numbers of a token's vector.
    pub(super) token_width: usize,
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

/// A head, and the tensor that has its rows.
#[derive(Clone, Copy)]
struct HeadSource<'a> {
    head: Head,
    tensor: &'a HeadTensor,
}

impl Model {
    /// Copies the rows of each sequence to its place.
    pub(super) fn read(
        &self,
        outputs: &SessionOutputs<'_>,
        call: &Call<'_>,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        for (head, column) in results.columns.iter_mut() {
            if let Some(tensor) = self.wiring.heads.get(head) {
                let source = HeadSource { head, tensor };
                self.read_head(source, outputs, call, column)?;
            }
        }
        Ok(())
    }

    fn read_head(
        &self,
        HeadSource { head, tensor }: HeadSource<'_>,
        outputs: &SessionOutputs<'_>,
        call: &Call<'_>,
        column: &mut Column,
    ) -> Result<(), BackendError> {
        let Call {
            batch,
            class,
            padded,
        } = call;
        let (length, width) = (padded.length, self.token_width);
        let expected = match (&column, tensor) {
            (Column::Scores(_), _) => Expected::Pooled { width: 1 },
            (_, HeadTensor::Pooled(_)) => Expected::Pooled {
                width: self.info.dimensions,
            },
            (Column::Weights(_), HeadTensor::Tokens(_)) => Expected::Weights { length },
            (_, HeadTensor::Tokens(_)) => Expected::Tokens { length, width },
        };
        let rows = Rows::of(outputs, tensor.name(), expected)?;
        for (at, i) in class.iter().copied().enumerate() {
            let n = padded.lengths[at];
            match column {
                Column::Vectors(vectors) => match tensor {
                    HeadTensor::Pooled(_) => {
                        vectors.row_mut(i).copy_from_slice(rows.get(at, 0, 1)?)
                    }
                    HeadTensor::Tokens(_) => {
                        self.pooling.pool(rows.get(at, 0, n)?, vectors.row_mut(i))
                    }
                },
                Column::Weights(all) => {
                    let (ids, skip) = (batch.sequence(i).ids, &self.special_token_ids);
                    let weights = rows.get(at, 0, n)?;
                    all[i] = SparseVector::from_token_weights(ids, weights, skip);
                }
                Column::Rows(all) => {
                    let skipped = match head.form() {
                        HeadForm::Rows { skipped, .. } => skipped,
                        _ => 0,
                    };
                    // Some exports leave the first token out, as the reference does; others leave that to the caller.
                    let first = if rows.length == length { skipped } else { 0 };
                    all[i] = Matrix {
                        data: rows.get(at, first, n - skipped)?.to_vec(),
                        width,
                    };
                }
                Column::Scores(scores) => scores[i] = rows.get(at, 0, 1)?[0],
            }
        }
        Ok(())
    }
}
