//! The runs of a backend on sequences, whose results become rows of numbers that can be compared.

use crate::{
    Backend, BackendError, EmbeddingBatch, HeadValue, Outputs, PerHead, SparseVector, TokenBatch,
};

/// The numbers of one sequence, flattened, under each head.
pub(super) type Rows = PerHead<Vec<f32>>;

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
    let mut result = result.map_err(|e| format!("a valid batch is refused: {e}"))?;
    let set = result.columns.heads();
    if set != outputs {
        return Err(format!("asked for {outputs}, got {set}"));
    }
    count(&result, n)?;
    (0..n).map(|i| rows(&mut result, i)).collect()
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
    for (head, column) in result.columns.iter() {
        let rows = column.n_sequences();
        if rows != n {
            return Err(format!("{n} sequences give {rows} rows of {}", head.name()));
        }
    }
    Ok(())
}

/// Each result must have a row `i`: they were counted before.
fn rows(result: &mut EmbeddingBatch, i: usize) -> Result<Rows, String> {
    let row = result.take_row(i, result.columns.heads());
    let numbers = row.iter().map(|(head, value)| {
        let numbers = match value {
            HeadValue::Weights(sparse) => sparse_row(sparse)?,
            value => value.numbers().to_vec(),
        };
        Ok((head, numbers))
    });
    numbers.collect()
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
