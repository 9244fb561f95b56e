//! A backend without a model, for tests of embedgate: vectors are a function of the token ids, and what a real model does
//! only on a bad day (fail, panic, give NaN, take its time) happens on demand.

mod control;

use embedgate_core::{
    Backend, BackendError, BackendInfo, Column, EmbeddingBatch, Head, Layout, Matrix, Outputs,
    Pause, PerHead, Precision, SparseVector, TokenBatch,
};

pub use control::Control;

/// A sequence that holds this token gets NaN for a vector.
pub const NAN_TOKEN: u32 = 90_001;
/// A sequence that holds this token gets NaN in the company of others, and a good vector alone.
pub const NAN_IN_COMPANY_TOKEN: u32 = 90_002;
/// A batch that holds this token fails.
pub const FAIL_TOKEN: u32 = 90_003;
/// A batch that holds this token panics.
pub const PANIC_TOKEN: u32 = 90_004;

/// A batch that holds this token reports that the backend is lost.
pub const LOST_TOKEN: u32 = 90_005;
/// The backend: dense, sparse and multi-vector.
pub struct MockBackend {
    info: BackendInfo,
    control: Control,
    /// True when the backend runs in another backend's pause: then it does not wait at the gate.
    is_aside: bool,
}

impl MockBackend {
    /// Makes a backend of so many dimensions, and the handle that steers it.
    #[must_use]
    pub fn new(dimensions: usize) -> (Self, Control) {
        let control = Control::default();
        (Self::steered_by(dimensions, &control), control)
    }

    /// Makes one more backend that the same handle steers, such as a replica, or one that takes a lost one's place.
    #[must_use]
    pub fn steered_by(dimensions: usize, control: &Control) -> Self {
        let info = BackendInfo {
            backend: "mock",
            device: "cpu".into(),
            precision: Precision::F32,
            dimensions,
            is_pooled_by_model: false,
            outputs: Outputs::BGE_M3,
            max_sequence_tokens: 512,
            vocabulary_size: 100_000,
            type_vocabulary_size: 2,
            layout: Layout::Packed,
        };
        Self {
            info,
            control: control.clone(),
            is_aside: false,
        }
    }

    /// The vector of a sequence: each token adds to one dimension, so that order does not matter but every token does.
    #[must_use]
    pub fn vector(ids: &[u32], dimensions: usize) -> Vec<f32> {
        let mut vector = vec![1.0; dimensions];
        for (at, id) in ids.iter().enumerate() {
            vector[*id as usize % dimensions] += (at + 1) as f32 * (*id % 97) as f32;
        }
        vector
    }

    /// The sparse weights of a sequence: of each id but the first and the last, the more the larger the id.
    #[must_use]
    pub fn sparse(ids: &[u32]) -> SparseVector {
        let inner = ids.get(1..ids.len() - 1).unwrap_or_default();
        let weights: Vec<f32> = inner.iter().map(|id| (id % 97) as f32 / 97.0).collect();
        SparseVector::from_token_weights(inner, &weights, &[])
    }

    /// The token vectors of a sequence, without the first token's.
    #[must_use]
    pub fn multi_vector(ids: &[u32], dimensions: usize) -> Matrix {
        let mut matrix = Matrix::zeros(ids.len() - 1, dimensions);
        for (i, id) in ids[1..].iter().enumerate() {
            matrix
                .row_mut(i)
                .copy_from_slice(&Self::vector(&[*id], dimensions));
        }
        matrix
    }
}

impl Backend for MockBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.info.check(batch, outputs)?;
        self.control.record(batch, outputs);
        if !self.is_aside {
            self.control.enter();
        }
        self.results(batch, outputs)
    }

    fn can_pause(&self) -> bool {
        true
    }

    /// Pauses once, and then as long as the gate is closed.
    fn embed_with_pauses(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
        pause: &mut Pause<'_>,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.info.check(batch, outputs)?;
        self.control.record(batch, outputs);
        let mut other = Self {
            is_aside: true,
            ..Self::steered_by(self.info.dimensions, &self.control)
        };
        loop {
            if pause(&mut other).is_break() {
                return Err(BackendError::Stopped);
            }
            if !self.control.is_closed() {
                return self.results(batch, outputs);
            }
            std::thread::yield_now();
        }
    }
}

impl MockBackend {
    fn results(
        &self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        if batch.ids().contains(&LOST_TOKEN) {
            return Err(BackendError::Lost {
                what: "the mock was told to be lost",
                source: "told so".into(),
            });
        }
        if batch.ids().contains(&FAIL_TOKEN) {
            return Err(BackendError::inference(
                "the mock was told to fail",
                "told so",
            ));
        }
        assert!(
            !batch.ids().contains(&PANIC_TOKEN),
            "the mock was told to panic"
        );
        let mut dense = Matrix::zeros(batch.len(), self.info.dimensions);
        for (i, sequence) in batch.iter().enumerate() {
            let bad = sequence.ids.contains(&NAN_TOKEN)
                || (sequence.ids.contains(&NAN_IN_COMPANY_TOKEN) && batch.len() > 1);
            dense
                .row_mut(i)
                .copy_from_slice(&Self::vector(sequence.ids, self.info.dimensions));
            if bad {
                dense.row_mut(i).fill(f32::NAN);
            }
        }
        let rows_by = |of: &dyn Fn(&[u32]) -> Matrix| {
            Column::Rows(batch.iter().map(|sequence| of(sequence.ids)).collect())
        };
        let column = |head| match head {
            Head::Sparse => Column::Weights(batch.iter().map(|s| Self::sparse(s.ids)).collect()),
            Head::MultiVector => rows_by(&|ids| Self::multi_vector(ids, self.info.dimensions)),
            Head::TokenVectors => rows_by(&|ids| Matrix {
                data: ids
                    .iter()
                    .flat_map(|id| Self::vector(&[*id], self.info.dimensions))
                    .collect(),
                width: self.info.dimensions,
            }),
            Head::Dense => Column::Vectors(dense.clone()),
            _ => unreachable!("the mock has no {}", head.name()),
        };
        Ok(EmbeddingBatch {
            columns: PerHead::of(outputs, column),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mock_keeps_the_contract() {
        let (mut backend, _) = MockBackend::new(8);
        embedgate_core::conformance::check(&mut backend).unwrap();
    }
}
