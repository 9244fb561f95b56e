//! The trait that every local backend implements, and the facts that it states of itself.

use std::{ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    BackendError, EmbeddingBatch, EncoderConfig, Head, Outputs, Pooling, TokenBatch,
    batch::Sequence,
};

/// A model loaded on one device, owned by one worker thread.
pub trait Backend: Send {
    /// Facts fixed at load time.
    fn info(&self) -> &BackendInfo;

    /// Runs one forward pass for all of `outputs`.
    ///
    /// Row `i` of every result belongs to sequence `i` of `batch`. Dense vectors are pooled and multi-vectors projected,
    /// neither is normalized: that is the caller's, who may cut dimensions first. Scores are raw logits. Exactly the
    /// results asked for are set.
    ///
    /// # Errors
    /// [`BackendError::InvalidBatch`] when the batch is empty, holds an empty sequence, one longer than
    /// [`BackendInfo::max_sequence_tokens`], or an id or a segment outside its vocabulary.
    /// [`BackendError::UnsupportedOutput`] when the model cannot give what is asked. [`BackendError::Inference`] when the
    /// library underneath fails.
    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError>;

    /// Returns true when a long batch can be interrupted.
    fn can_pause(&self) -> bool {
        false
    }

    /// Embeds a batch that takes long. Between two steps it calls `pause` with another backend like this one: `pause`
    /// runs something short on that backend, and returns whether to go on. A backend that cannot pause does as in
    /// [`embed`](Self::embed).
    ///
    /// # Errors
    /// As for [`embed`](Self::embed), and [`BackendError::Stopped`] when `pause` breaks.
    fn embed_with_pauses(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
        pause: &mut Pause<'_>,
    ) -> Result<EmbeddingBatch, BackendError> {
        _ = pause;
        self.embed(batch, outputs)
    }

    /// Returns the maker of more backends that share the weights of this one; none where the weights cannot be shared.
    /// The maker keeps the weights when this backend is dropped.
    fn replicas(&self) -> Option<Replicas> {
        None
    }
}

/// The function that is called while a long batch rests: see [`Backend::embed_with_pauses`].
pub type Pause<'a> = dyn FnMut(&mut dyn Backend) -> ControlFlow<()> + Send + 'a;

/// Makes backends that share the weights of one model. Fails with [`BackendError::Load`] when there are no resources for
/// one more, and with [`BackendError::Lost`] when the weights are lost.
pub type Replicas = Arc<dyn Fn() -> Result<Box<dyn Backend>, BackendError> + Send + Sync>;

/// Facts of a loaded model that never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// The library that runs the model, such as `candle`.
    pub backend: &'static str,
    /// The device that runs the model, such as `cpu`.
    pub device: String,
    /// The number format of the arithmetic.
    pub precision: Precision,
    /// Width of a dense vector; 0 where the model gives none.
    pub dimensions: usize,
    /// True when the model's own file pools, and so applies all that sentence-transformers puts behind the pooling.
    pub is_pooled_by_model: bool,
    /// The outputs that the model gives: a cross-encoder gives scores alone, any other model gives at least dense
    /// vectors.
    pub outputs: Outputs,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Valid token ids are below this.
    pub vocabulary_size: usize,
    /// Valid segments are below this.
    pub type_vocabulary_size: usize,
    /// The layout of a batch in memory, which determines the cost of the batch.
    pub layout: Layout,
}

impl BackendInfo {
    /// The facts of an encoder that runs packed on the processor, in f32, with these outputs and this pooling.
    #[must_use]
    pub fn of_encoder(
        backend: &'static str,
        encoder: &EncoderConfig,
        (outputs, pooling): (Outputs, Pooling),
        max_sequence_tokens: usize,
    ) -> Self {
        let width = encoder.hidden_size;
        Self {
            backend,
            device: "cpu".into(),
            precision: Precision::F32,
            dimensions: if outputs.has(Head::Dense) {
                pooling.width_of(width)
            } else {
                0
            },
            is_pooled_by_model: false,
            outputs,
            max_sequence_tokens: max_sequence_tokens.min(encoder.max_sequence_tokens),
            vocabulary_size: encoder.vocabulary_size(),
            type_vocabulary_size: encoder.n_segments(),
            layout: Layout::Packed,
        }
    }

    /// Checks a batch and the outputs asked for against the facts of the model, before any work.
    ///
    /// # Errors
    /// As for [`Backend::embed`].
    pub fn check(&self, batch: &TokenBatch, outputs: Outputs) -> Result<(), BackendError> {
        if batch.is_empty() {
            return Err(BackendError::InvalidBatch(
                "the batch holds no sequence".into(),
            ));
        }
        if !self.outputs.contains(outputs) {
            return Err(BackendError::UnsupportedOutput {
                asked: outputs,
                available: self.outputs,
            });
        }
        for (i, sequence) in batch.iter().enumerate() {
            self.check_sequence(i, sequence)?;
        }
        Ok(())
    }

    fn check_sequence(&self, i: usize, sequence: Sequence<'_>) -> Result<(), BackendError> {
        let Sequence { ids, type_ids } = sequence;
        if ids.is_empty() {
            return Err(BackendError::InvalidBatch(format!("sequence {i} is empty")));
        }
        if ids.len() > self.max_sequence_tokens {
            return Err(BackendError::InvalidBatch(format!(
                "sequence {i} has {} tokens, the model takes at most {}",
                ids.len(),
                self.max_sequence_tokens
            )));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary_size) {
            return Err(BackendError::InvalidBatch(format!(
                "sequence {i} holds token id {id}, the vocabulary has {} ids",
                self.vocabulary_size
            )));
        }
        let segments = self.type_vocabulary_size;
        if let Some(segment) = type_ids.iter().find(|&&id| id as usize >= segments) {
            return Err(BackendError::InvalidBatch(format!(
                "sequence {i} holds segment {segment}, the model has {segments} segments"
            )));
        }
        Ok(())
    }
}

/// Number format of weights and arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Products of 16-bit floats with sums in 32-bit floats.
    F16,
    /// bfloat16 products with sums in 32-bit floats.
    Bf16,
    /// Products of bytes.
    Int8,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Int8 => f.write_str("int8"),
        }
    }
}

/// The layout of a batch in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Every sequence takes the length of the longest: the cost of a batch is its longest sequence times its count.
    Padded,
    /// Sequences lie back to back: the cost of a batch is its number of tokens.
    Packed,
}
