//! The options of a model, and what follows from them for its tensors.

use candle_core::{DType, Device};
use embedgate_core::{BackendError, Pooling, Precision};

use crate::{
    card::card,
    rows::{Rows, TensorOptions},
};

/// The options that are chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The method that makes the dense vector of token vectors; a cross-encoder has none.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// Threads of a matrix product.
    pub threads: usize,
    /// The format of weights and arithmetic: on the processor f32 is by far the fastest.
    pub precision: Precision,
    /// True for candle's stock operations in f32, too.
    pub stock_operations: bool,
    /// The NVIDIA card that it runs on, by the number that the driver gives it; none for the processor.
    pub card: Option<usize>,
}

impl Options {
    /// A model on the processor, in f32.
    #[must_use]
    pub fn on_processor(pooling: Pooling, max_sequence_tokens: usize, threads: usize) -> Self {
        Self {
            pooling,
            max_sequence_tokens,
            special_token_ids: Vec::new(),
            threads,
            precision: Precision::F32,
            stock_operations: false,
            card: None,
        }
    }

    /// Returns the device and the format of tensors, and the arithmetic on them.
    pub(crate) fn tensor_options(&self) -> Result<TensorOptions, BackendError> {
        let format = match self.precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
            Precision::Int8 => {
                let message = "candle does not run models in int8";
                return Err(BackendError::Load(message.into()));
            }
        };
        let device = self.card.map_or(Ok(Device::Cpu), card)?;
        let own = device.is_cpu() && format == DType::F32 && !self.stock_operations;
        Ok(TensorOptions {
            device,
            format,
            rows: if own { Rows::Own } else { Rows::Stock },
        })
    }
}
