//! The runs of a backend on sequences, whose results become rows of numbers that can be compared.

use crate::{Backend, BackendError, EmbeddingBatch, Matrix, Outputs, SparseVector, TokenBatch};

/// The rows of one sequence, flattened, by output.
pub(super) type Rows = Vec<Vec<f32>>;
/// Runs each sequence in a batch of its own.
pub(super) fn run_alone(
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

/// Runs the sequences in one batch.
pub(super) fn run(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    outputs: Outputs,
) -> Result<Vec<Rows>, String> {
    let batch = batch(sequences, backend.info().type_vocabulary_size);
    all_rows(backend.embed(&batch, outputs), sequences.len(), outputs)
}

/// The rows of so many sequences that have exactly these outputs.
pub(super) fn all_rows(
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

/// Makes a batch. The second half of each sequence is in segment 1, where the model has more than one.
pub(super) fn batch(sequences: &[Vec<u32>], n_segments: usize) -> TokenBatch {
    let mut batch = TokenBatch::new();
    for ids in sequences {
        let second = |at: usize| u32::from(n_segments > 1 && at >= ids.len() / 2);
        let type_ids: Vec<u32> = (0..ids.len()).map(second).collect();
        batch.push_pair(ids, &type_ids);
    }
    batch
}

/// Fails where a result has not `n` rows.
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
