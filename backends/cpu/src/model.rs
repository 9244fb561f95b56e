//! A model: its weights, which any number of backends share, and the way from a batch to results.

use embedgate_core::{BackendInfo, EmbeddingBatch, Outputs, TokenBatch, machine::cores::Core};

use crate::{
    encoder::{Encoder, workspace::Workspace},
    halt::{Halt, Pause},
    heads::{Heads, Hidden},
};

/// A model's weights and what is known of it, which any number of backends share.
pub(crate) struct Model {
    pub(crate) info: BackendInfo,
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
        let selection = self.heads.selection(outputs);
        let rows = self.encoder.forward(batch, selection, workspace, pause)?;
        let hidden = Hidden {
            rows,
            selection,
            batch,
        };
        let mut results = EmbeddingBatch::default();
        for head in outputs.iter() {
            if let Some(column) = self.heads.column(head, hidden)? {
                results.columns.set(head, column);
            }
        }
        Ok(results)
    }
}
