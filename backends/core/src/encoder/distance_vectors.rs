//! Vectors by distance, of which each layer makes keys and queries: attention between what tokens hold and how far apart they are.

use super::{Norm, Table};

/// Vectors by distance. A layer's own projections make a key and a query of each: a token's query is scored with the key of a
/// distance, and a token's key with the query of a distance, and both are added to the score of two tokens that far apart.
///
/// Source: He et al., "DeBERTa", 2020; transformers 5.24, `modeling_deberta_v2.py`.
#[derive(Clone, Debug, PartialEq)]
pub struct DistanceVectors {
    /// The vectors: half of the rows are for keys behind the query, half for those before.
    pub table: Table,
    /// Of the vectors.
    pub norm: Option<Norm>,
    /// Where distances share rows the more the farther they are, the distance from which on all share one; none: each distance
    /// has a row, as far as there are rows.
    pub max_distance: Option<usize>,
    /// True when queries are scored with keys of distances.
    pub has_keys: bool,
    /// True when keys are scored with queries of distances.
    pub has_queries: bool,
}

impl DistanceVectors {
    /// The row of a distance, the query's place minus the key's.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "rows are few"
    )]
    pub fn row(&self, distance: i64) -> usize {
        let span = (self.table.rows / 2) as i64;
        let range = match self.max_distance {
            None => distance,
            Some(most) => {
                let (half, far) = (span / 2, distance.abs());
                if far <= half {
                    distance
                } else {
                    let ratio = (far as f32 / half as f32).ln();
                    let whole = ((most as f64 - 1.0) / half as f64) as f32;
                    let steps = (ratio / whole.ln() * (half - 1) as f32).ceil() as i64;
                    (steps + half) * distance.signum()
                }
            }
        };
        usize::try_from((range + span).clamp(0, 2 * span - 1)).unwrap_or(0)
    }

    /// The rows of all distances from `1 - longest` to `longest - 1`.
    #[must_use]
    pub fn rows(&self, longest: usize) -> Vec<usize> {
        let most = i64::try_from(longest).unwrap_or(i64::MAX);
        (1 - most..most)
            .map(|distance| self.row(distance))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the function of transformers 5.24, for 8 ranges to a side and a distance of 64, and without ranges.
    #[test]
    fn rows_are_those_of_the_reference() {
        let mut vectors = DistanceVectors {
            table: Table {
                name: "rel_embeddings".into(),
                rows: 16,
            },
            norm: None,
            max_distance: Some(64),
            has_keys: true,
            has_queries: true,
        };
        let rows = |vectors: &DistanceVectors| {
            [-70, -63, -30, -9, -5, -4, -1, 0, 1, 4, 5, 9, 30, 63, 70]
                .map(|distance| vectors.row(distance))
        };
        assert_eq!(rows(&vectors), EXPECTED);
        vectors.max_distance = None;
        assert_eq!(
            rows(&vectors)[3..],
            [0, 3, 4, 7, 8, 9, 12, 13, 15, 15, 15, 15]
        );
        assert_eq!(vectors.rows(3), [6, 7, 8, 9, 10]);
    }

    const EXPECTED: [usize; 15] = [0, 1, 1, 3, 3, 4, 7, 8, 9, 12, 13, 13, 15, 15, 15];
}
