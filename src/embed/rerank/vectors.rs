//! The score of a document for a query, from the vectors of both.

use embedgate_config::RerankWeights;
use embedgate_core::{HeadValue, Matrix, SparseVector};
use embedgate_request::Embedding;

/// The weighted mean of the scores by each of the results that both have.
///
/// Source: FlagEmbedding 1.4.2, `inference/embedder/encoder_only/m3.py`, `compute_score`.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
pub(super) fn score(weights: RerankWeights, query: &Embedding, document: &Embedding) -> f32 {
    let (mut sum, mut of) = (0.0, 0.0);
    for (head, value) in query.results.iter() {
        let score = match (value, document.results.get(head)) {
            (HeadValue::Vector(a), Some(HeadValue::Vector(b))) => dot(a, b).into(),
            (HeadValue::Weights(a), Some(HeadValue::Weights(b))) => lexical(a, b),
            (HeadValue::Rows(a), Some(HeadValue::Rows(b))) => late_interaction(a, b),
            _ => continue,
        };
        let weight = weights.of(head);
        sum += weight * score;
        of += weight;
    }
    (sum / of) as f32
}

/// The product of two vectors of one length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sums side by side: a single one would wait for each addition.
    let mut sums = [0.0_f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum over the tokens that both have of the product of their weights.
fn lexical(a: &SparseVector, b: &SparseVector) -> f64 {
    let mut others = b.indices.iter().zip(&b.values).peekable();
    let mut sum = 0.0;
    for (id, weight) in a.indices.iter().zip(&a.values) {
        while others.next_if(|(other, _)| *other < id).is_some() {}
        if let Some((_, other)) = others.next_if(|(other, _)| *other == id) {
            sum += f64::from(*weight) * f64::from(*other);
        }
    }
    sum
}

/// The mean over the query's tokens of the best product with a token of the document; 0 where one has no token.
fn late_interaction(query: &Matrix, document: &Matrix) -> f64 {
    let best = |i: usize| {
        let rows = (0..document.rows()).map(|j| dot(query.row(i), document.row(j)));
        rows.reduce(f32::max).unwrap_or(0.0)
    };
    let n = query.rows();
    let sum: f64 = (0..n).map(|i| f64::from(best(i))).sum();
    if n == 0 { 0.0 } else { sum / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexical_weights_meet_at_equal_tokens_alone() {
        let sparse = |pairs: &[(u32, f32)]| {
            let (indices, values) = pairs.iter().copied().unzip();
            SparseVector { indices, values }
        };
        let a = sparse(&[(1, 0.5), (4, 2.0), (9, 1.0)]);
        assert_eq!(
            lexical(&a, &sparse(&[(0, 9.0), (4, 0.25), (5, 9.0), (9, 3.0)])),
            3.5
        );
        assert_eq!(lexical(&a, &sparse(&[])), 0.0);
        assert_eq!(
            lexical(&sparse(&[(9, 1.0)]), &sparse(&[(1, 1.0), (2, 1.0)])),
            0.0
        );
    }

    #[test]
    fn each_token_of_the_query_counts_with_its_best() {
        let matrix = |rows: &[[f32; 2]]| Matrix {
            data: rows.concat(),
            width: 2,
        };
        let query = matrix(&[[1.0, 0.0], [0.0, 1.0]]);
        let document = matrix(&[[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]]);
        assert!((late_interaction(&query, &document) - 0.9).abs() < 1e-6);
        assert_eq!(late_interaction(&query, &matrix(&[])), 0.0);
    }
}
