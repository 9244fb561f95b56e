//! The memory of a forward pass, which a worker keeps from batch to batch.

use std::sync::Mutex;

use half::bf16;

use super::{Encoder, STEP_ROWS, experts::Gathered};
use crate::{
    attention::scratch::Scratch,
    buffers::{Activations, rounding::Rounding},
    memory::resize,
    vector::Angles,
};

/// The numbers of one forward pass, and scratch memory of each thread.
pub(crate) struct Workspace {
    /// Shape `(rows, width)`: what the layers add to.
    pub(super) x: Vec<f32>,
    /// The vectors of tokens, where they are of another width.
    pub(super) embedded: Vec<f32>,
    /// The place of each token in its sequence.
    pub(super) places: Vec<u32>,
    /// The angles of each rotation.
    pub(super) angles: Vec<Angles>,
    pub(super) qkv: Activations,
    pub(super) contexts: Activations,
    /// The intermediate rows of one step.
    pub(super) wide: Activations,
    /// The numbers that are added to the rows of one step, where they are normalized first.
    pub(super) added: Vec<f32>,
    pub(super) gathered: Gathered,
    pub(super) rounding: Rounding,
    pub(super) floats: Vec<Mutex<Scratch<f32>>>,
    pub(super) halves: Vec<Mutex<Scratch<bf16>>>,
}

impl Workspace {
    /// Memory for an encoder, of which there is none before the first batch, and for so many threads.
    pub(crate) fn new(encoder: &Encoder, threads: usize) -> Self {
        let (attention, feed_forward) = (&encoder.config.attention, encoder.config.feed_forward);
        let rows = |width| Activations::new(width, encoder.activations);
        Self {
            x: Vec::new(),
            embedded: Vec::new(),
            places: Vec::new(),
            angles: encoder.rotations.iter().map(Angles::new).collect(),
            qkv: rows(attention.qkv_width()),
            contexts: rows(attention.query_width()),
            wide: rows(feed_forward.up_width()),
            added: Vec::new(),
            gathered: Gathered::default(),
            rounding: Rounding::new(encoder.precision),
            floats: (0..threads).map(|_| Mutex::default()).collect(),
            halves: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Makes room for so many rows.
    pub(super) fn resize(&mut self, rows: usize, encoder: &Encoder) {
        resize(&mut self.x, rows * encoder.width());
        if encoder.embedding.is_projected() {
            resize(&mut self.embedded, rows * encoder.embedding.width);
        }
        self.qkv.resize(rows);
        self.contexts.resize(rows);
        self.wide.resize(rows.min(STEP_ROWS));
    }
}
