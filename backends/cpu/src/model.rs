//! A model: its weights, which any number of backends share, and the way from a batch to results.

use embedgate_core::{
    BackendInfo, EmbeddingBatch, Matrix, Outputs, Pooling, TokenBatch, cores::Core,
};

use crate::{
    attention::Which,
    encoder::{Encoder, workspace::Workspace},
    halt::{Halt, Pause},
    heads::Heads,
};

/// A model's weights and what is known of it, which any number of backends share.
pub(crate) struct Model {
    pub(crate) info: BackendInfo,
    pub(crate) pooling: Pooling,
    pub(crate) special_token_ids: Vec<u32>,
    pub(crate) threads: usize,
    pub(crate) cores: Vec<Core>,
    pub(crate) encoder: Encoder,
    pub(crate) heads: Heads,
}

impl Model {
    /// Runs a forward pass and its heads on the threads of the pool that it is called in.
    pub(crate) fn run(
        &self,
        batch: &TokenBatch,
        outputs: Outputs,
        workspace: &mut Workspace,
        pause: &mut Pause<'_>,
    ) -> Result<EmbeddingBatch, Halt> {
        let reads_all = outputs.sparse
            || outputs.multi_vector
            || outputs.token_vectors
            || (outputs.dense && self.pooling != Pooling::Cls);
        let which = if reads_all { Which::All } else { Which::First };
        let hidden = self.encoder.forward(batch, which, workspace, pause)?;
        let width = self.encoder.width();
        let mut results = EmbeddingBatch::default();
        if outputs.dense {
            results.dense = Some(self.dense(hidden, batch, which));
        }
        if outputs.token_vectors {
            let ends = batch.offsets().windows(2);
            let rows = |e: &[usize]| Matrix {
                data: hidden[e[0] * width..e[1] * width].to_vec(),
                width,
            };
            results.token_vectors = Some(ends.map(rows).collect());
        }
        if outputs.sparse {
            let tokens = &hidden[..batch.ids().len() * width];
            results.sparse = self.heads.sparse(tokens, batch, &self.special_token_ids);
        }
        if outputs.multi_vector {
            results.multi_vector = self.heads.multi_vector(hidden, batch)?;
        }
        if outputs.score {
            // A cross-encoder gives nothing else, so that these are the rows of first tokens.
            results.scores = self.heads.scores(hidden, batch.len())?;
        }
        Ok(results)
    }

    /// Pools the rows of each sequence that the encoder gave.
    fn dense(&self, hidden: &[f32], batch: &TokenBatch, which: Which) -> Matrix {
        let width = self.encoder.width();
        let mut dense = Matrix::zeros(batch.len(), width);
        for (i, ends) in batch.offsets().windows(2).enumerate() {
            let rows = match which {
                Which::First => i..i + 1,
                Which::All => ends[0]..ends[1],
            };
            self.pooling.pool(
                &hidden[rows.start * width..rows.end * width],
                dense.row_mut(i),
            );
        }
        dense
    }
}
