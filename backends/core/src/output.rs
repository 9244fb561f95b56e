//! The results of a batch: a column for each head, with an entry for each sequence.

use crate::{Head, HeadForm, HeadValue, Matrix, Outputs, PerHead, Row, SparseVector};

/// The results of one head for a batch: entry `i` belongs to sequence `i`.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// A row a sequence.
    Vectors(Matrix),
    /// Lexical weights of each sequence.
    Weights(Vec<SparseVector>),
    /// A matrix a sequence, with a row a token.
    Rows(Vec<Matrix>),
    /// A score a sequence.
    Scores(Vec<f32>),
}

impl Column {
    /// Makes a column of zeros, or of empty values, of `n` sequences.
    #[must_use]
    pub fn empty(form: HeadForm, n: usize, dimensions: usize) -> Self {
        match form {
            HeadForm::Vector => Self::Vectors(Matrix::zeros(n, dimensions)),
            HeadForm::Weights => Self::Weights(vec![SparseVector::default(); n]),
            HeadForm::Rows { .. } => Self::Rows(vec![Matrix::default(); n]),
            HeadForm::Score => Self::Scores(vec![0.0; n]),
        }
    }

    /// Number of sequences.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        match self {
            Self::Vectors(matrix) => matrix.rows(),
            Self::Weights(all) => all.len(),
            Self::Rows(all) => all.len(),
            Self::Scores(all) => all.len(),
        }
    }

    /// Takes the value of sequence `i` away.
    fn take(&mut self, i: usize) -> HeadValue {
        match self {
            Self::Vectors(matrix) => HeadValue::Vector(matrix.row(i).to_vec()),
            Self::Weights(all) => HeadValue::Weights(std::mem::take(&mut all[i])),
            Self::Rows(all) => HeadValue::Rows(std::mem::take(&mut all[i])),
            Self::Scores(all) => HeadValue::Score(all[i]),
        }
    }

    /// Adds the values of more sequences. A column of another form changes nothing.
    pub fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Vectors(all), Self::Vectors(more)) => all.data.extend(more.data),
            (Self::Weights(all), Self::Weights(more)) => all.extend(more),
            (Self::Rows(all), Self::Rows(more)) => all.extend(more),
            (Self::Scores(all), Self::Scores(more)) => all.extend(more),
            _ => {}
        }
    }

    /// All numbers, without the token ids of weights, in pieces.
    #[must_use]
    pub fn numbers(&self) -> Vec<&[f32]> {
        match self {
            Self::Vectors(matrix) => vec![&matrix.data],
            Self::Weights(all) => all.iter().map(|sparse| &sparse.values[..]).collect(),
            Self::Rows(all) => all.iter().map(|matrix| &matrix.data[..]).collect(),
            Self::Scores(all) => vec![all],
        }
    }
}

/// The results of one batch: a column for each head that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingBatch {
    /// A column for each head that was asked for.
    pub columns: PerHead<Column>,
}

impl EmbeddingBatch {
    /// The vectors of a head, shape `(sequences, dimensions)`; none where the head has no column, or one of another form.
    #[must_use]
    pub fn vectors(&self, head: Head) -> Option<&Matrix> {
        match self.columns.get(head)? {
            Column::Vectors(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// The weights of a head; none where the head has no column, or one of another form.
    #[must_use]
    pub fn weights(&self, head: Head) -> Option<&[SparseVector]> {
        match self.columns.get(head)? {
            Column::Weights(all) => Some(all),
            _ => None,
        }
    }

    /// The token vectors of a head, a matrix `(tokens, dimensions)` a sequence; none where the head has no column, or one of another
    /// form.
    #[must_use]
    pub fn rows(&self, head: Head) -> Option<&[Matrix]> {
        match self.columns.get(head)? {
            Column::Rows(all) => Some(all),
            _ => None,
        }
    }

    /// The scores of a head; none where the head has no column, or one of another form.
    #[must_use]
    pub fn scores(&self, head: Head) -> Option<&[f32]> {
        match self.columns.get(head)? {
            Column::Scores(all) => Some(all),
            _ => None,
        }
    }

    /// Takes the values of sequence `i` away, under the heads of `outputs`.
    #[must_use]
    pub fn take_row(&mut self, i: usize, outputs: Outputs) -> Row {
        let columns = self.columns.iter_mut();
        let asked = columns.filter(|(head, _)| outputs.has(*head));
        asked.map(|(head, column)| (head, column.take(i))).collect()
    }

    /// Returns true when each of these heads has a value for each of `n` sequences.
    #[must_use]
    pub fn is_complete(&self, n: usize, outputs: Outputs) -> bool {
        let is_whole = |column: &Column| column.n_sequences() == n;
        outputs
            .iter()
            .all(|head| self.columns.get(head).is_some_and(is_whole))
    }

    /// Returns true when all values are finite numbers.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let mut pieces = self.columns.iter().flat_map(|(_, column)| column.numbers());
        pieces.all(|numbers| numbers.iter().all(|x| x.is_finite()))
    }
}
