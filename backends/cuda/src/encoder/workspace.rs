//! The memory of a forward pass.

use std::sync::Arc;

use super::{Encoder, inputs::Inputs, layer::Layer};
use crate::{
    calls::operands::Sequences,
    device::{Buffer, Device},
    error::DriverError,
    linear::STEP,
};

/// The memory of a forward pass, all of which is there from the load on.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The most tokens, and therefore sequences, of a batch.
    pub(crate) most_tokens: usize,
    pub(super) inputs: Inputs,
    /// Rows that layers add to, and those that they add: they change places.
    pub(super) x: Buffer,
    pub(super) sums: Buffer,
    pub(super) added: Buffer,
    pub(super) qkv: Buffer,
    pub(super) contexts: Buffer,
    pub(super) wide: Buffer,
}

impl Workspace {
    /// Memory for batches of so many tokens.
    pub(crate) fn new(
        encoder: &Encoder,
        device: &Arc<Device>,
        most_tokens: usize,
    ) -> Result<Self, DriverError> {
        let rows = |width: usize| Buffer::new(device, most_tokens * width * 2);
        let wide = encoder.layers.first().map_or(STEP, Layer::wide);
        Ok(Self {
            most_tokens,
            inputs: Inputs::new(device, most_tokens)?,
            x: rows(encoder.stride)?,
            sums: rows(encoder.stride)?,
            added: rows(encoder.stride)?,
            qkv: rows(3 * encoder.heads.width())?,
            contexts: rows(encoder.heads.width())?,
            wide: rows(wide)?,
        })
    }

    /// The last hidden states of the last forward pass, of shape `(rows, stride)`: of all tokens, or of each sequence's first.
    pub(crate) fn hidden(&self) -> &Buffer {
        &self.x
    }

    /// The sequences of the last forward pass.
    pub(crate) fn sequences(&self) -> Sequences<'_> {
        self.inputs.sequences()
    }
}
