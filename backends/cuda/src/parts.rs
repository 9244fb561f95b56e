//! Long batches in parts, one after the other.

use embedgate_core::{EmbeddingBatch, Matrix, TokenBatch};

/// Splits a batch into parts of at most so many tokens, of which no sequence has more.
pub(crate) fn parts(batch: &TokenBatch, most: usize) -> Vec<TokenBatch> {
    let mut parts: Vec<TokenBatch> = Vec::new();
    for sequence in batch.iter() {
        let fits = |part: &&mut TokenBatch| part.n_tokens() + sequence.ids.len() <= most;
        match parts.last_mut().filter(|part| fits(part)) {
            Some(part) => part.push_pair(sequence.ids, sequence.type_ids),
            None => {
                let mut part = TokenBatch::new();
                part.push_pair(sequence.ids, sequence.type_ids);
                parts.push(part);
            }
        }
    }
    parts
}

/// Puts the results of parts of a batch together.
pub(crate) fn join(parts: Vec<EmbeddingBatch>) -> EmbeddingBatch {
    fn append<T>(to: &mut Option<Vec<T>>, from: Option<Vec<T>>) {
        if let Some(from) = from {
            to.get_or_insert_default().extend(from);
        }
    }
    let mut all = EmbeddingBatch::default();
    for part in parts {
        if let Some(dense) = part.dense {
            let to = all
                .dense
                .get_or_insert_with(|| Matrix::zeros(0, dense.width));
            to.data.extend(dense.data);
        }
        append(&mut all.sparse, part.sparse);
        append(&mut all.multi_vector, part.multi_vector);
        append(&mut all.token_vectors, part.token_vectors);
        append(&mut all.scores, part.scores);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_batch_goes_in_parts_whose_results_are_those_of_the_whole() {
        let lengths = [3, 4, 1, 8, 2, 2, 2, 3];
        let sequences: Vec<Vec<u32>> = lengths.iter().map(|n| vec![7; *n]).collect();
        let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
        let parts = parts(&batch, 8);
        let of: Vec<usize> = parts.iter().map(TokenBatch::len).collect();
        assert_eq!(of, [3, 1, 3, 1]);
        let results = parts.iter().map(|part| EmbeddingBatch {
            scores: Some(part.iter().map(|s| s.ids.len() as f32).collect()),
            dense: Some(Matrix::zeros(part.len(), 2)),
            ..EmbeddingBatch::default()
        });
        let all = join(results.collect());
        assert_eq!(all.scores.unwrap(), lengths.map(|n| n as f32));
        assert_eq!(all.dense.unwrap().rows(), lengths.len());
        assert_eq!(all.sparse, None);
    }
}
