//! The promises of pauses.

use std::ops::ControlFlow;

use super::runs::{Rows, all_rows, batch, run};
use crate::{Backend, BackendError};

/// Checks that batches in pauses change no result and give their usual results, and that a `pause` that breaks is
/// obeyed.
pub(super) fn pauses(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    together: &[Rows],
) -> Result<(), String> {
    let info = backend.info().clone();
    let of = |sequences: &[Vec<u32>]| batch(sequences, info.type_vocabulary_size);
    let all = of(sequences);
    let mut in_pauses = Vec::new();
    let result = backend.embed_with_pauses(&all, info.outputs, &mut |other| {
        let sequence = in_pauses.len() % sequences.len();
        in_pauses.push(run(other, &sequences[sequence..=sequence], info.outputs));
        ControlFlow::Continue(())
    });
    if all_rows(result, sequences.len(), info.outputs)? != together {
        return Err("a batch that paused gives other numbers".into());
    }
    if backend.can_pause() == in_pauses.is_empty() {
        return Err("a backend pauses if it says that it can, and else it does not".into());
    }
    for (i, result) in in_pauses.into_iter().enumerate() {
        let sequence = i % sequences.len();
        let alone = run(backend, &sequences[sequence..=sequence], info.outputs)?;
        if result? != alone {
            return Err(format!(
                "sequence {sequence} gives other numbers in a pause"
            ));
        }
    }
    let mut n_pauses = 0;
    let result = backend.embed_with_pauses(&all, info.outputs, &mut |_| {
        n_pauses += 1;
        ControlFlow::Break(())
    });
    match (backend.can_pause(), n_pauses, result) {
        (true, 1, Err(BackendError::Stopped)) | (false, 0, Ok(_)) => {}
        _ => {
            return Err(format!(
                "a batch that is stopped goes on, or pauses {n_pauses} times"
            ));
        }
    }
    if run(backend, sequences, info.outputs)? != together {
        return Err("a batch that was stopped changes the next".into());
    }
    Ok(())
}
