//! The test that every backend must pass, whatever its model.

mod pauses;
mod refusals;
mod rows;
mod runs;

use self::{
    pauses::pauses,
    refusals::{refused_batches, refused_outputs},
    rows::{same, shapes},
    runs::{Rows, run, run_alone},
};
use crate::{Backend, Head, Layout, Outputs, Precision};

/// Largest difference of a number, relative to the largest of its vector, between two ways of running one sequence. A
/// vector of one number, such as a score, is taken relative to the largest of all sequences.
///
/// Matrix products of another size sum in another order: 2e-5 is about 100 roundings of f32.
pub const TOLERANCE: f32 = 2e-5;
/// The tolerance where sequences are padded and the operands of products are rounded to bytes. A last bit that differs
/// can round to the next byte, one of 127 steps, and so can the values that follow from it. The models of the tests
/// differ by 0.021 at most.
pub const TOLERANCE_OF_BYTES: f32 = 0.05;

/// Checks a backend against the contract: one sequence alone, in any batch and in any order gives the same rows; shapes
/// are right; exactly the outputs asked for are set; scores differ between sequences; pauses change nothing; what
/// breaks the contract is refused.
///
/// # Errors
/// A sentence that says which promise is broken.
pub fn check(backend: &mut dyn Backend) -> Result<(), String> {
    let info = backend.info().clone();
    let sequences = sequences(info.vocabulary_size, info.max_sequence_tokens);
    let alone = run_alone(backend, &sequences, info.outputs)?;
    shapes(&alone, &sequences, info.dimensions)?;

    let together = run(backend, &sequences, info.outputs)?;
    let tolerance = match (info.layout, info.precision) {
        (Layout::Padded, Precision::Int8) => TOLERANCE_OF_BYTES,
        _ => TOLERANCE,
    };
    same(&alone, &together, tolerance, "alone and in one batch")?;
    let again = run(backend, &sequences, info.outputs)?;
    if again != together {
        return Err("the same batch twice gives other numbers".into());
    }
    let reversed: Vec<_> = sequences.iter().rev().cloned().collect();
    let mut turned = run(backend, &reversed, info.outputs)?;
    turned.reverse();
    same(&alone, &turned, tolerance, "in reverse order")?;
    one_output_at_a_time(backend, &sequences, &together, tolerance)?;
    pauses(backend, &sequences, &together)?;
    let is_same = |two: &[Rows]| two[0].get(Head::Score) == two[1].get(Head::Score);
    if info.outputs.has(Head::Score) && alone.windows(2).all(is_same) {
        return Err("every sequence has the same score".into());
    }
    refused_outputs(backend)?;
    refused_batches(backend)
}

/// Deterministic pseudo-random ids in lengths from 1 to 300, short and long in turn so that padding is at work.
fn sequences(vocabulary_size: usize, max_tokens: usize) -> Vec<Vec<u32>> {
    let mut state = 0x2545_f491_u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize
    };
    let lengths = [1, 7, 300, 2, 64, 5, 33, 128, 3, 65, 1, 17];
    let mut sequences = Vec::new();
    for length in lengths {
        let ids = (0..length.min(max_tokens))
            .map(|_| u32::try_from(next() % vocabulary_size).unwrap_or(0));
        sequences.push(ids.collect());
    }
    sequences
}

/// Checks that each output alone gives what all together give.
fn one_output_at_a_time(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    together: &[Rows],
    tolerance: f32,
) -> Result<(), String> {
    let outputs = backend.info().outputs;
    for head in outputs.iter() {
        let of_head = |rows: &Rows| rows.clone().take_only(head);
        let expected: Vec<Rows> = together.iter().map(of_head).collect();
        let single = Outputs::of(&[head]);
        same(
            &expected,
            &run(backend, sequences, single)?,
            tolerance,
            &format!("when only {single} is asked for"),
        )?;
    }
    Ok(())
}
