//! The rows that heads read on the device, and the memory of their results there.

use std::sync::Arc;

use embedgate_core::TokenBatch;

use crate::{
    calls::operands::Sequences,
    device::{Buffer, Device, Stream},
    encoder::{Encoder, TokenSelection},
    error::DriverError,
};

/// Memory of results on the device.
#[derive(Debug)]
pub(crate) struct Results {
    /// The memory of results in f32.
    pub(super) floats: Buffer,
    /// The memory of rows in halves.
    pub(super) rows: Buffer,
}

impl Results {
    /// Room for batches of so many tokens.
    pub(crate) fn new(
        device: &Arc<Device>,
        encoder: &Encoder,
        most_tokens: usize,
    ) -> Result<Self, DriverError> {
        Ok(Self {
            floats: Buffer::new(device, most_tokens * encoder.width() * size_of::<f32>())?,
            rows: Buffer::new(device, most_tokens * encoder.stride() * size_of::<u16>())?,
        })
    }
}

/// The rows of a forward pass, and the memory for what is made of them.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<'a> {
    pub(crate) stream: &'a Stream,
    /// Rows of all tokens, or of each sequence's first.
    pub(crate) rows: &'a Buffer,
    pub(crate) selection: TokenSelection,
    pub(crate) batch: &'a TokenBatch,
    pub(crate) sequences: Sequences<'a>,
    pub(crate) results: &'a Results,
}
