//! The test that every backend must pass, whatever its model.

use crate::{Backend, BackendError, EmbeddingBatch, Outputs, SparseVector, TokenBatch};

/// Largest difference of a number, relative to the largest of its vector, between two ways of running one sequence.
///
/// Matrix products of another size sum in another order: 2e-5 is about 100 roundings of f32.
pub const TOLERANCE: f32 = 2e-5;

/// Checks a backend against the contract: one sequence alone, in any batch and in any order gives the same rows; shapes
/// are right; exactly the outputs asked for are set; what breaks the contract is refused.
///
/// # Errors
/// A sentence that says which promise is broken.
pub fn check(backend: &mut dyn Backend) -> Result<(), String> {
    let info = backend.info().clone();
    let sequences = sequences(info.vocabulary_size, info.max_sequence_tokens);
    let alone = run_alone(backend, &sequences, info.outputs)?;
    shapes(&alone, &sequences, info.outputs, info.dimensions)?;

    let together = run(backend, &sequences, info.outputs)?;
    same(&alone, &together, "alone and in one batch")?;
    let again = run(backend, &sequences, info.outputs)?;
    if again != together {
        return Err("the same batch twice gives other numbers".into());
    }
    let reversed: Vec<_> = sequences.iter().rev().cloned().collect();
    let mut turned = run(backend, &reversed, info.outputs)?;
    turned.reverse();
    same(&alone, &turned, "in reverse order")?;
    one_output_at_a_time(backend, &sequences, &together, info.outputs)?;
    refusals(backend)
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
    let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
    let result = backend
        .embed(&batch, outputs)
        .map_err(|e| format!("a valid batch is refused: {e}"))?;
    let set = Outputs {
        dense: result.dense.is_some(),
        sparse: result.sparse.is_some(),
        multi_vector: result.multi_vector.is_some(),
        score: result.scores.is_some(),
    };
    if set != outputs {
        return Err(format!("asked for {outputs}, got {set}"));
    }
    (0..sequences.len()).map(|i| rows(&result, i)).collect()
}

fn rows(result: &EmbeddingBatch, i: usize) -> Result<Rows, String> {
    let missing = || format!("no row for sequence {i}");
    let mut rows = Vec::new();
    if let Some(dense) = &result.dense {
        rows.push(if i < dense.rows() {
            dense.row(i).to_vec()
        } else {
            return Err(missing());
        });
    }
    if let Some(sparse) = &result.sparse {
        rows.push(sparse_row(sparse.get(i).ok_or_else(missing)?)?);
    }
    if let Some(multi) = &result.multi_vector {
        rows.push(multi.get(i).ok_or_else(missing)?.data.clone());
    }
    if let Some(scores) = &result.scores {
        rows.push(vec![*scores.get(i).ok_or_else(missing)?]);
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
    }
    Ok(())
}

fn same(expected: &[Rows], got: &[Rows], how: &str) -> Result<(), String> {
    for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
        for (expected, got) in expected.iter().zip(got) {
            let scale = expected
                .iter()
                .fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
            let far = |(a, b): (&f32, &f32)| {
                !a.is_finite() || !b.is_finite() || (a - b).abs() > TOLERANCE * scale
            };
            if expected.len() != got.len() || expected.iter().zip(got).any(far) {
                return Err(format!("sequence {i} differs {how}"));
            }
        }
    }
    Ok(())
}

fn one_output_at_a_time(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    together: &[Rows],
    outputs: Outputs,
) -> Result<(), String> {
    let none = Outputs::default();
    let singles = [
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
            score: true,
            ..none
        },
    ];
    for (n, single) in singles
        .into_iter()
        .filter(|single| outputs.contains(*single))
        .enumerate()
    {
        let expected: Vec<Rows> = together.iter().map(|rows| vec![rows[n].clone()]).collect();
        same(
            &expected,
            &run(backend, sequences, single)?,
            &format!("when only {single} is asked for"),
        )?;
    }
    Ok(())
}

fn refusals(backend: &mut dyn Backend) -> Result<(), String> {
    let info = backend.info().clone();
    let beyond = u32::try_from(info.vocabulary_size).map_err(|e| e.to_string())?;
    let beyond = [beyond];
    let too_long = vec![0; info.max_sequence_tokens + 1];
    let cases: [(&str, Vec<&[u32]>); 4] = [
        ("an empty batch", vec![]),
        ("an empty sequence", vec![&[0], &[]]),
        ("an id beyond the vocabulary", vec![&[0], &beyond]),
        ("a sequence beyond the longest", vec![&too_long]),
    ];
    let all = Outputs {
        dense: true,
        sparse: true,
        multi_vector: true,
        score: true,
    };
    let one: TokenBatch = std::iter::once(&[0_u32][..]).collect();
    if !info.outputs.contains(all) {
        match backend.embed(&one, all) {
            Err(BackendError::UnsupportedOutput { .. }) => {}
            other => {
                return Err(format!(
                    "asking for too much gives {:?}",
                    other.map(|_| "rows")
                ));
            }
        }
    }
    for (what, sequences) in cases {
        let batch: TokenBatch = sequences.into_iter().collect();
        match backend.embed(&batch, Outputs::DENSE) {
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
