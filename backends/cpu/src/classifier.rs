//! The head of a cross-encoder: one score a sequence. It computes in f32, whatever the encoder's precision.

use embedgate_core::{
    Pooling, TokenSelection,
    encoder::{self, LinearValues, Score},
};
use embedgate_weights::{Weights, WeightsError};

use crate::{
    heads::Hidden,
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    vector::{Norm, dot},
};

/// `score(norm(activation(dense(x))))` of one vector a sequence, without those that are none.
pub(crate) struct Classifier {
    pub(crate) pooling: Pooling,
    dense: Option<Linear>,
    norm: Option<Norm>,
    score: (Vec<f32>, f32),
}

impl Classifier {
    /// Reads the layers under the names of their description.
    pub(crate) fn load(
        source: &encoder::Classifier,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let dense = source.dense.as_ref();
        let dense = dense.map(|(dense, activation)| loader.exact_with(dense, Some(*activation)));
        Ok(Self {
            pooling: source.pooling,
            dense: dense.transpose()?,
            norm: loader.norm_if_any(source.norm.as_ref())?,
            score: one_output(score(loader.weights, &source.score)?),
        })
    }

    /// Returns the logit of each sequence.
    pub(crate) fn scores(&self, hidden: Hidden<'_>, width: usize) -> Result<Vec<f32>, OneDnnError> {
        let n = hidden.batch.len();
        let mut rows = vec![0.0; n.next_multiple_of(ROW_STEP) * width];
        for (i, range) in hidden.batch.ranges().enumerate() {
            let range = match hidden.selection {
                TokenSelection::All => range,
                TokenSelection::First | TokenSelection::Last => i..i + 1,
            };
            let of_sequence = &hidden.rows[range.start * width..range.end * width];
            let row = &mut rows[i * width..(i + 1) * width];
            self.pooling.pool(of_sequence, row);
        }
        if let Some(dense) = &self.dense {
            let mut made = vec![0.0; rows.len()];
            dense.forward(Operand::F32(&rows), Target::F32(&mut made))?;
            rows = made;
        }
        if let Some(norm) = &self.norm {
            norm.apply(&mut rows);
        }
        let (weight, bias) = &self.score;
        let rows = rows.chunks_exact(width).take(n);
        Ok(rows.map(|row| dot(row, weight) + bias).collect())
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.dense.as_ref().map_or(0, Linear::bytes)
    }
}

fn score(weights: &Weights, source: &Score) -> Result<LinearValues, WeightsError> {
    source.read(
        |name, shape| weights.values(name, shape),
        |name, shape, rows| weights.rows(name, shape, rows),
    )
}

/// Weight and bias of a linear layer with one output.
pub(crate) fn one_output(values: LinearValues) -> (Vec<f32>, f32) {
    let bias = values.bias.first().copied();
    (values.weight, bias.unwrap_or_default())
}
