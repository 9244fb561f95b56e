//! The handle by which a test steers the backend: a gate for batches, and a record of them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use embedgate_core::{Outputs, TokenBatch};

/// The handle by which a test reads and steers the backend while the backend's worker owns it.
#[derive(Clone, Default)]
pub struct Control {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: usize,
    batches: Vec<Vec<Vec<u32>>>,
    outputs: Vec<Outputs>,
}

impl Control {
    /// Makes every batch wait until [`Control::open`].
    pub fn close(&self) {
        self.with(|state| state.closed = true);
    }

    /// Lets batches through.
    pub fn open(&self) {
        self.with(|state| state.closed = false);
        self.state.1.notify_all();
    }

    /// Blocks until a batch waits at the closed gate.
    pub fn wait_for_batch(&self) {
        let guard = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.state
                .1
                .wait_while(guard, |state| state.waiting == 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The batches so far, each a list of sequences, those at the gate included.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<Vec<u32>>> {
        self.with(|state| state.batches.clone())
    }

    /// Returns the outputs that each of the batches so far was asked for.
    #[must_use]
    pub fn outputs(&self) -> Vec<Outputs> {
        self.with(|state| state.outputs.clone())
    }

    /// Returns the number of sequences that were run so far, those at the gate included.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.with(|state| state.batches.iter().map(Vec::len).sum())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a batch, and what it was asked for.
    pub(crate) fn record(&self, batch: &TokenBatch, outputs: Outputs) {
        self.with(|state| {
            let ids = batch.iter().map(|sequence| sequence.ids.to_vec());
            state.batches.push(ids.collect());
            state.outputs.push(outputs);
        });
    }

    /// Returns true while the gate is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.with(|state| state.closed)
    }

    /// Waits at the gate while it is closed.
    pub(crate) fn enter(&self) {
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        self.state.1.notify_all();
        state = self
            .state
            .1
            .wait_while(state, |state| state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
    }
}
