//! The value that is kept of one input under one head, in memory and in the file.

use std::sync::Arc;

use embedgate_config::ValuePrecision;
use embedgate_core::{HeadValue, Matrix, PerHead, Row, SparseVector};

use super::numbers::Numbers;

/// The results of one forward pass for one input, as the model gave them.
pub(crate) struct Computed {
    /// The results that were asked for.
    pub row: Row,
    /// Tokens that the model saw.
    pub n_tokens: usize,
    /// Tokens of the whole input.
    pub n_tokens_full: usize,
}

impl Computed {
    /// Rounds the numbers as they are kept, so that an answer does not depend on whether it was computed or kept. Scores are of
    /// pairs, and are not kept.
    pub(super) fn into_values(
        self,
        precision: ValuePrecision,
        computed_at: u64,
    ) -> PerHead<Arc<CachedValue>> {
        let values = self.row.into_iter().filter_map(|(head, value)| {
            let value = CachedValue {
                payload: Payload::new(value, precision)?,
                n_tokens: self.n_tokens,
                n_tokens_full: self.n_tokens_full,
                computed_at,
            };
            Some((head, Arc::new(value)))
        });
        values.collect()
    }
}

/// One result and the token counts of its input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CachedValue {
    /// The numbers, of the model's own width, not normalized.
    pub payload: Payload,
    /// Tokens that the model saw.
    pub n_tokens: usize,
    /// Tokens of the whole input.
    pub n_tokens_full: usize,
    /// Seconds since 1970.
    pub computed_at: u64,
}

impl CachedValue {
    /// Memory that the numbers take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let indices = match &self.payload {
            Payload::Weights { indices, .. } => size_of_val(&**indices),
            Payload::Vector(_) | Payload::Rows { .. } => 0,
        };
        indices + self.payload.numbers().bytes()
    }

    /// Returns true when the numbers are kept in this precision.
    #[must_use]
    pub(crate) fn is_of(&self, precision: ValuePrecision) -> bool {
        self.payload.numbers().is_of(precision)
    }
}

/// The result of one head, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    /// A vector.
    Vector(Numbers),
    /// Token ids, ascending, and the weight of each.
    Weights {
        /// The ids.
        indices: Box<[u32]>,
        /// A weight an id.
        weights: Numbers,
    },
    /// Token vectors, row after row.
    Rows {
        /// The rows.
        rows: Numbers,
        /// Numbers in a row.
        width: usize,
    },
}

impl Payload {
    /// Rounds the numbers of a result; none for a score.
    fn new(value: HeadValue, precision: ValuePrecision) -> Option<Self> {
        Some(match value {
            HeadValue::Vector(vector) => Self::Vector(Numbers::new(vector, precision)),
            HeadValue::Weights(SparseVector { indices, values }) => Self::Weights {
                indices: indices.into(),
                weights: Numbers::new(values, precision),
            },
            HeadValue::Rows(Matrix { data, width }) => Self::Rows {
                rows: Numbers::new(data, precision),
                width,
            },
            HeadValue::Score(_) => return None,
        })
    }

    fn numbers(&self) -> &Numbers {
        match self {
            Self::Vector(numbers)
            | Self::Weights {
                weights: numbers, ..
            }
            | Self::Rows { rows: numbers, .. } => numbers,
        }
    }
}
