//! The results of one sequence: a value for each head.

use crate::{Head, HeadForm, Matrix, PerHead, SparseVector};

/// The result of one head for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadValue {
    /// A vector.
    Vector(Vec<f32>),
    /// Lexical weights.
    Weights(SparseVector),
    /// A vector a token.
    Rows(Matrix),
    /// A score.
    Score(f32),
}

impl HeadValue {
    /// All numbers, without the token ids of weights.
    #[must_use]
    pub fn numbers(&self) -> &[f32] {
        match self {
            Self::Vector(vector) => vector,
            Self::Weights(sparse) => &sparse.values,
            Self::Rows(matrix) => &matrix.data,
            Self::Score(score) => std::slice::from_ref(score),
        }
    }

    /// Returns true when the value has this form, and the size that it has for a sequence of `n_tokens` tokens in a model of
    /// this width.
    #[must_use]
    pub fn fits(&self, form: HeadForm, dimensions: usize, n_tokens: usize) -> bool {
        match (self, form) {
            (Self::Vector(vector), HeadForm::Vector) => vector.len() == dimensions,
            (Self::Weights(sparse), HeadForm::Weights) => {
                sparse.indices.len() == sparse.values.len()
            }
            (Self::Rows(matrix), HeadForm::Rows { skipped, .. }) => {
                let rows = n_tokens.saturating_sub(skipped);
                matrix.width > 0 && matrix.data.len() == matrix.width * rows
            }
            (Self::Score(_), HeadForm::Score) => true,
            _ => false,
        }
    }
}

/// The results of one sequence: a value for each head that was asked for.
pub type Row = PerHead<HeadValue>;

impl Row {
    /// The vector of a head; none where the head has no value, or one of another form.
    #[must_use]
    pub fn vector(&self, head: Head) -> Option<&[f32]> {
        match self.get(head)? {
            HeadValue::Vector(vector) => Some(vector),
            _ => None,
        }
    }

    /// The weights of a head; none where the head has no value, or one of another form.
    #[must_use]
    pub fn weights(&self, head: Head) -> Option<&SparseVector> {
        match self.get(head)? {
            HeadValue::Weights(sparse) => Some(sparse),
            _ => None,
        }
    }

    /// The token vectors of a head; none where the head has no value, or one of another form.
    #[must_use]
    pub fn rows(&self, head: Head) -> Option<&Matrix> {
        match self.get(head)? {
            HeadValue::Rows(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// The score of a head; none where the head has no value, or one of another form.
    #[must_use]
    pub fn score(&self, head: Head) -> Option<f32> {
        match self.get(head)? {
            HeadValue::Score(score) => Some(*score),
            _ => None,
        }
    }

    /// Returns true when all values are finite numbers.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.iter()
            .all(|(_, value)| value.numbers().iter().all(|x| x.is_finite()))
    }

    /// Returns true when all values have the sizes that they have for a sequence of `n_tokens` tokens in a model of this width.
    #[must_use]
    pub fn fits(&self, dimensions: usize, n_tokens: usize) -> bool {
        self.iter()
            .all(|(head, value)| value.fits(head.form(), dimensions, n_tokens))
    }
}
