//! The test that every backend must pass, whatever its model.

use std::ops::ControlFlow;

use crate::{
    Backend, BackendError, EmbeddingBatch, Layout, Matrix, Outputs, Precision, SparseVector,
    TokenBatch,
};

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
    shapes(&alone, &sequences, info.outputs, info.dimensions)?;

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
    if info.outputs.score && alone.windows(2).all(|two| two[0].last() == two[1].last()) {
        return Err("every sequence has the same score".into());
    }
    refused_outputs(backend)?;
    refused_batches(backend)
}

/// The rows of one sequence, flattened, by output.
type Rows = Vec<Vec<f32>>;

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

fn run_alone(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    outputs: Outputs,
) -> Result<Vec<Rows>, String> {
    let mut all = Vec::new();
    for ids in sequences {
        all.append(&mut run(backend, std::slice::from_ref(ids), outputs)?);
    }
    Ok(all)
}

fn run(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    outputs: Outputs,
) -> Result<Vec<Rows>, String> {
    let batch = batch(sequences, backend.info().type_vocabulary_size);
    all_rows(backend.embed(&batch, outputs), sequences.len(), outputs)
}

/// The rows of so many sequences that have exactly these outputs.
fn all_rows(
    result: Result<EmbeddingBatch, BackendError>,
    n: usize,
    outputs: Outputs,
) -> Result<Vec<Rows>, String> {
    let result = result.map_err(|e| format!("a valid batch is refused: {e}"))?;
    let set = Outputs {
        dense: result.dense.is_some(),
        sparse: result.sparse.is_some(),
        multi_vector: result.multi_vector.is_some(),
        token_vectors: result.token_vectors.is_some(),
        score: result.scores.is_some(),
    };
    if set != outputs {
        return Err(format!("asked for {outputs}, got {set}"));
    }
    count(&result, n)?;
    (0..n).map(|i| rows(&result, i)).collect()
}

/// The second half of each sequence is in segment 1, where the model has more than one.
fn batch(sequences: &[Vec<u32>], n_segments: usize) -> TokenBatch {
    let mut batch = TokenBatch::new();
    for ids in sequences {
        let second = |at: usize| u32::from(n_segments > 1 && at >= ids.len() / 2);
        let type_ids: Vec<u32> = (0..ids.len()).map(second).collect();
        batch.push_pair(ids, &type_ids);
    }
    batch
}

fn count(result: &EmbeddingBatch, n: usize) -> Result<(), String> {
    let counts = [
        result.dense.as_ref().map(Matrix::rows),
        result.sparse.as_ref().map(Vec::len),
        result.multi_vector.as_ref().map(Vec::len),
        result.token_vectors.as_ref().map(Vec::len),
        result.scores.as_ref().map(Vec::len),
    ];
    match counts.into_iter().flatten().find(|rows| *rows != n) {
        Some(rows) => Err(format!("{n} sequences give {rows} rows")),
        None => Ok(()),
    }
}

/// Each result must have a row `i`: they were counted before.
fn rows(result: &EmbeddingBatch, i: usize) -> Result<Rows, String> {
    let mut rows = Vec::new();
    if let Some(dense) = &result.dense {
        rows.push(dense.row(i).to_vec());
    }
    if let Some(sparse) = &result.sparse {
        rows.push(sparse_row(&sparse[i])?);
    }
    if let Some(multi) = &result.multi_vector {
        rows.push(multi[i].data.clone());
    }
    if let Some(tokens) = &result.token_vectors {
        rows.push(tokens[i].data.clone());
    }
    if let Some(scores) = &result.scores {
        rows.push(vec![scores[i]]);
    }
    Ok(rows)
}

/// The weights spread over their token ids, so that a row compares like any other and a swapped id is a difference.
fn sparse_row(vector: &SparseVector) -> Result<Vec<f32>, String> {
    let SparseVector { indices, values } = vector;
    if indices.len() != values.len() || !indices.is_sorted_by(|a, b| a < b) {
        return Err("sparse ids are not ascending, or are not as many as weights".into());
    }
    if values.iter().any(|weight| *weight <= 0.0) {
        return Err("a sparse weight is not above 0".into());
    }
    let mut row = vec![0.0; indices.last().map_or(0, |last| *last as usize + 1)];
    for (id, weight) in indices.iter().zip(values) {
        row[*id as usize] = *weight;
    }
    Ok(row)
}

fn shapes(
    all: &[Rows],
    sequences: &[Vec<u32>],
    outputs: Outputs,
    dimensions: usize,
) -> Result<(), String> {
    for (rows, ids) in all.iter().zip(sequences) {
        let mut rows = rows.iter();
        if outputs.dense && rows.next().is_some_and(|dense| dense.len() != dimensions) {
            return Err(format!("a dense vector has not {dimensions} numbers"));
        }
        if outputs.sparse {
            rows.next();
        }
        if outputs.multi_vector
            && rows
                .next()
                .is_some_and(|multi| multi.len() != (ids.len() - 1) * dimensions)
        {
            return Err(format!(
                "a sequence of {} tokens has not {} token vectors",
                ids.len(),
                ids.len() - 1
            ));
        }
        if outputs.token_vectors
            && rows
                .next()
                .is_some_and(|all| all.len() != ids.len() * dimensions)
        {
            return Err(format!(
                "a sequence has not {} vectors as of the last layer",
                ids.len()
            ));
        }
    }
    Ok(())
}

fn same(expected: &[Rows], got: &[Rows], tolerance: f32, how: &str) -> Result<(), String> {
    for (i, (rows, got)) in expected.iter().zip(got).enumerate() {
        for (n, (row, got)) in rows.iter().zip(got).enumerate() {
            let scale = match row[..] {
                [_] => largest(expected.iter().flat_map(|any| &any[n])),
                _ => largest(row),
            };
            if row.len() != got.len() {
                return Err(format!("sequence {i} has rows of another length {how}"));
            }
            for (a, b) in row.iter().zip(got) {
                let far = (a - b).abs() / scale;
                if !far.is_finite() || far > tolerance {
                    return Err(format!(
                        "sequence {i} differs {how}: {b}, expected {a}, by {far:e} of its largest number"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn largest<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> f32 {
    let numbers = numbers.into_iter();
    numbers.fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()))
}

fn one_output_at_a_time(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    together: &[Rows],
    tolerance: f32,
) -> Result<(), String> {
    let outputs = backend.info().outputs;
    for (n, single) in single_outputs()
        .into_iter()
        .filter(|single| outputs.contains(*single))
        .enumerate()
    {
        let expected: Vec<Rows> = together.iter().map(|rows| vec![rows[n].clone()]).collect();
        same(
            &expected,
            &run(backend, sequences, single)?,
            tolerance,
            &format!("when only {single} is asked for"),
        )?;
    }
    Ok(())
}

/// Checks that batches in pauses change no result and give their usual results, and that a `pause` that breaks is
/// obeyed.
fn pauses(
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

fn single_outputs() -> [Outputs; 5] {
    let none = Outputs::default();
    [
        Outputs {
            dense: true,
            ..none
        },
        Outputs {
            sparse: true,
            ..none
        },
        Outputs {
            multi_vector: true,
            ..none
        },
        Outputs {
            token_vectors: true,
            ..none
        },
        Outputs {
            score: true,
            ..none
        },
    ]
}

/// Checks that an output that the model does not give is refused, alone and together with outputs that it gives.
fn refused_outputs(backend: &mut dyn Backend) -> Result<(), String> {
    let available = backend.info().outputs;
    let one: TokenBatch = std::iter::once(&[0_u32][..]).collect();
    for single in single_outputs() {
        if available.contains(single) {
            continue;
        }
        for asked in [single, single.union(available)] {
            match backend.embed(&one, asked) {
                Err(BackendError::UnsupportedOutput { .. }) => {}
                other => {
                    return Err(format!(
                        "asking for {asked} of a model of {available} gives {:?}",
                        other.map(|_| "rows")
                    ));
                }
            }
        }
    }
    Ok(())
}

fn refused_batches(backend: &mut dyn Backend) -> Result<(), String> {
    let info = backend.info().clone();
    let beyond = |size: usize| u32::try_from(size).map_err(|e| e.to_string());
    let unknown = [beyond(info.vocabulary_size)?];
    let too_long = vec![0; info.max_sequence_tokens + 1];
    let ids = |sequences: &[&[u32]]| sequences.iter().copied().collect::<TokenBatch>();
    let mut other_segment = TokenBatch::new();
    other_segment.push_pair(&[0], &[beyond(info.type_vocabulary_size)?]);
    let cases = [
        ("an empty batch", TokenBatch::new()),
        ("an empty sequence", ids(&[&[0], &[]])),
        ("an id beyond the vocabulary", ids(&[&[0], &unknown])),
        ("a sequence beyond the longest", ids(&[&too_long])),
        ("a segment beyond the model's", other_segment),
    ];
    for (what, batch) in cases {
        match backend.embed(&batch, info.outputs) {
            Err(BackendError::InvalidBatch(_)) => {}
            other => {
                return Err(format!(
                    "{what} gives {:?}, expected InvalidBatch",
                    other.map(|_| "rows")
                ));
            }
        }
    }
    Ok(())
}
