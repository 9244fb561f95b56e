//! The memory of a forward pass, which a worker keeps from batch to batch.

use std::sync::Mutex;

use embedgate_core::EncoderConfig;
use half::bf16;

use super::{Encoder, STEP_ROWS};
use crate::{
    attention::scratch::Scratch,
    buffers::{Activations, rounding::Rounding},
    memory::resize,
};

/// The numbers of one forward pass, and scratch memory of each thread.
pub(crate) struct Workspace {
    /// Shape `(rows, width)`: what the layers add to.
    pub(super) x: Vec<f32>,
    pub(super) qkv: Activations,
    pub(super) contexts: Activations,
    /// The intermediate rows of one step.
    pub(super) wide: Activations,
    pub(super) rounding: Rounding,
    pub(super) floats: Vec<Mutex<Scratch<f32>>>,
    pub(super) halves: Vec<Mutex<Scratch<bf16>>>,
}

impl Workspace {
    /// Memory for an encoder, of which there is none before the first batch, and for so many threads.
    pub(crate) fn new(encoder: &Encoder, threads: usize) -> Self {
        let EncoderConfig {
            hidden_size: width,
            intermediate_size: wide,
            ..
        } = encoder.config;
        let rows = |width| Activations::new(width, encoder.activations);
        Self {
            x: Vec::new(),
            qkv: rows(3 * width),
            contexts: rows(width),
            wide: rows(wide),
            rounding: Rounding::new(encoder.precision),
            floats: (0..threads).map(|_| Mutex::default()).collect(),
            halves: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Makes room for so many rows.
    pub(super) fn resize(&mut self, rows: usize, width: usize) {
        resize(&mut self.x, rows * width);
        self.qkv.resize(rows);
        self.contexts.resize(rows);
        self.wide.resize(rows.min(STEP_ROWS));
    }
}
