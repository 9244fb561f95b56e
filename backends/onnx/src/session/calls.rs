//! The calls of a session: as many sequences in one as the device has memory for.

use embedgate_core::{BackendError, EmbeddingBatch, TokenBatch};
use ort::session::SessionInputValue;

use super::{OnnxBackend, model::Call};
use crate::{device::Device, padded::Padded};

impl OnnxBackend {
    /// Runs sequences of like length in as few padded calls as its device has memory for, and writes their rows into
    /// `results`. On a processor in one.
    pub(super) fn run_class(
        &mut self,
        class: &[usize],
        batch: &TokenBatch,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let mut rest = class;
        while !rest.is_empty() {
            let (n, length) = self.next_call(rest, batch);
            let error = match self.run_call(&rest[..n], batch, results) {
                Ok(()) => {
                    rest = &rest[n..];
                    continue;
                }
                Err(error) if self.device == Device::Cpu => return Err(error),
                Err(error) => error,
            };
            if n == 1 {
                return Err(match self.still_works() {
                    // It has no memory for this one.
                    true => error,
                    false => BackendError::Lost {
                        what: "the device failed",
                        source: error.into(),
                    },
                });
            }
            self.most_tokens = n.div_ceil(2) * length;
            tracing::warn!(
                error = %error,
                "{} failed with {n} sequences of {length} tokens, batches go in parts of {} tokens from now on: {error}",
                self.device,
                self.most_tokens
            );
        }
        Ok(())
    }

    /// Tries the device with a sequence that has room anywhere.
    fn still_works(&mut self) -> bool {
        let batch: TokenBatch = std::iter::once([0_u32, 0].as_slice()).collect();
        // Nobody wants its results.
        self.run_call(&[0], &batch, &mut EmbeddingBatch::default())
            .is_ok()
    }

    /// The number of sequences that go in one call, at least one, and the length that they are padded to.
    fn next_call(&self, sequences: &[usize], batch: &TokenBatch) -> (usize, usize) {
        let length = sequences
            .iter()
            .map(|&i| batch.sequence(i).ids.len())
            .max()
            .unwrap_or(1);
        let fitting = (self.most_tokens / length.max(1)).max(1);
        (fitting.min(sequences.len()), length)
    }

    /// Runs sequences of like length in one padded call and writes their rows into `results`.
    fn run_call(
        &mut self,
        class: &[usize],
        batch: &TokenBatch,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let call = Call {
            batch,
            class,
            padded: Padded::new(batch, class, &self.model.encoder),
        };
        let inputs = self
            .model
            .wiring
            .inputs
            .iter()
            .map(|input| Ok((input.name.clone(), call.padded.input(input)?)));
        let inputs: Vec<(String, SessionInputValue<'_>)> = inputs
            .collect::<ort::Result<_>>()
            .map_err(|e| BackendError::inference("cannot make the inputs", e))?;
        // Until the outputs are dropped.
        let _turn = self.device.turn();
        let outputs = self
            .opened
            .session()
            .run(inputs)
            .map_err(|e| BackendError::inference("ONNX Runtime failed", e))?;
        self.model.read(&outputs, &call, results)
    }
}
