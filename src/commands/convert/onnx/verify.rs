//! Runs the written model beside another backend, on a few texts.

use std::path::Path;

use embedgate_config::ModelConfig;
use embedgate_core::{EmbeddingBatch, Head, Outputs, Precision, TokenBatch};

use super::comparison::{compare, rows};
use crate::model::{
    engine::{OF_ONNX_MODELS, REFERENCE},
    load::{self, Plan},
    load_context::LoadContext,
    loader::Loader,
    placement::Placement,
};

/// The texts that the written model is tried on: scripts, code, an empty text, and lengths that make padding.
const TEXTS: [&str; 5] = [
    "The quick brown fox jumps over the lazy dog.",
    "向量检索",
    "",
    "fn main() { println!(\"{}\", 6 * 7); }",
    "A longer text, so that the others of its batch are padded to its length: one two three four five six seven eight \
     nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one.",
];

/// The model that was written, and what its backends are opened with.
pub(super) struct Verification<'a> {
    pub(super) plan: &'a Plan,
    pub(super) config: &'a ModelConfig,
    pub(super) context: &'a LoadContext,
}

impl Verification<'_> {
    /// Runs both variants on a few texts and compares the heads that were written, and dense vectors; the file counts only if they
    /// agree.
    pub(super) fn of(
        &self,
        file: &Path,
        precision: Precision,
        written: Outputs,
    ) -> anyhow::Result<()> {
        let outputs = match written.has(Head::Score) {
            true => written,
            false => written.with(Head::Dense),
        };
        tracing::info!("checking the ONNX model against {}", REFERENCE.1);
        let tokenizer = load::tokenizer(self.plan)?;
        let mut batch = TokenBatch::new();
        for text in TEXTS {
            let ids = tokenizer.encode(text).map_err(anyhow::Error::msg)?.ids;
            let n_segments = self.plan.folder.encoder.n_segments();
            batch.push_pair(&ids, &segments(ids.len(), n_segments));
        }
        let loader = Loader {
            name: "of the conversion",
            config: self.config,
            plan: self.plan,
            tokenizer: &tokenizer,
            context: self.context,
        };
        let embed = |place: Placement| -> anyhow::Result<EmbeddingBatch> {
            let model = loader.resolve(&place)?;
            let backend = &model.backend;
            let mut opened = backend.engine.open(&loader, &model, backend.device)?;
            Ok(opened.embed(&batch, outputs)?)
        };
        let expected = embed(Placement::on_processor(REFERENCE.0, Precision::F32))?;
        let got = embed(Placement {
            file: Some(file.to_owned()),
            ..Placement::on_processor(OF_ONNX_MODELS, precision)
        })?;
        let n_ids = self.plan.folder.encoder.vocabulary_size();
        compare(
            &rows(&expected, n_ids, precision),
            &rows(&got, n_ids, precision),
            precision,
        )
    }
}

/// The second half of a sequence is in another segment, where the model has more than one.
fn segments(length: usize, n_segments: usize) -> Vec<u32> {
    let second = |at| n_segments > 1 && at >= length / 2;
    (0..length).map(|at| u32::from(second(at))).collect()
}
