//! Long batches in parts, one after the other.

use embedgate_core::{EmbeddingBatch, TokenBatch};

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
    let mut all = EmbeddingBatch::default();
    for part in parts {
        for (head, more) in part.columns {
            match all.columns.get_mut(head) {
                Some(column) => column.append(more),
                None => all.columns.set(head, more),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use embedgate_core::{Column, Head, Matrix};

    use super::*;

    #[test]
    fn a_long_batch_goes_in_parts_whose_results_are_those_of_the_whole() {
        let lengths = [3, 4, 1, 8, 2, 2, 2, 3];
        let sequences: Vec<Vec<u32>> = lengths.iter().map(|n| vec![7; *n]).collect();
        let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
        let parts = parts(&batch, 8);
        let of: Vec<usize> = parts.iter().map(TokenBatch::len).collect();
        assert_eq!(of, [3, 1, 3, 1]);
        let results = parts.iter().map(|part| {
            let lengths = part.iter().map(|s| s.ids.len() as f32);
            let columns = [
                (Head::Score, Column::Scores(lengths.collect())),
                (Head::Dense, Column::Vectors(Matrix::zeros(part.len(), 2))),
            ];
            EmbeddingBatch {
                columns: columns.into_iter().collect(),
            }
        });
        let all = join(results.collect());
        assert_eq!(all.scores(Head::Score).unwrap(), lengths.map(|n| n as f32));
        assert_eq!(all.vectors(Head::Dense).unwrap().rows(), lengths.len());
        assert_eq!(all.weights(Head::Sparse), None);
    }
}
