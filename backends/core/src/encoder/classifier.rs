//! The head of a cross-encoder.

use super::{Activation, Linear, LinearValues, Norm};
use crate::Pooling;

/// The head of a cross-encoder: `score(norm(activation(dense(x))))` of one token's vector, without those that are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    /// The first layer, and its activation.
    pub dense: Option<(Linear, Activation)>,
    /// A normalization behind it.
    pub norm: Option<Norm>,
    /// The layer that gives one number.
    pub score: Score,
    /// Makes one vector of the token vectors.
    pub pooling: Pooling,
}

/// The layer that gives the score of a pair.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// A layer of its own, with one output.
    Layer(Linear),
    /// The logits that a language model has for the token that is to follow.
    Logits {
        /// The name of the matrix of logits.
        name: String,
        /// Its shape: tokens of the vocabulary, and the width of a token vector.
        shape: [usize; 2],
        /// The tokens whose logits count.
        tokens: AnswerTokens,
    },
}

/// The tokens with which a language model answers whether two texts belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTokens {
    /// The token whose logit is the score.
    pub yes: u32,
    /// The token whose logit is taken from it.
    pub no: Option<u32>,
}

impl From<Linear> for Score {
    fn from(layer: Linear) -> Self {
        Self::Layer(layer)
    }
}

impl Score {
    /// Reads the layer, as one output. `read` gives the tensor of a name and a shape, `rows` some rows of a matrix.
    ///
    /// # Errors
    /// The first that `read` or `rows` gives.
    pub fn read<E>(
        &self,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
        rows: impl Fn(&str, [usize; 2], &[usize]) -> Result<Vec<Vec<f32>>, E>,
    ) -> Result<LinearValues, E> {
        match self {
            Self::Layer(layer) => layer.read(read),
            Self::Logits {
                name,
                shape,
                tokens,
            } => {
                let tokens = [Some(tokens.yes), tokens.no].into_iter().flatten();
                let tokens: Vec<usize> = tokens.map(|token| token as usize).collect();
                let mut rows = rows(name, *shape, &tokens)?.into_iter();
                let mut weight = rows.next().unwrap_or_default();
                for no in rows {
                    weight.iter_mut().zip(no).for_each(|(yes, no)| *yes -= no);
                }
                let bias = vec![0.0];
                Ok(LinearValues { weight, bias })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logit_of_no_is_taken_from_that_of_yes() {
        let score = |no| Score::Logits {
            name: "lm_head.weight".into(),
            shape: [4, 2],
            tokens: AnswerTokens { yes: 3, no },
        };
        let rows = |name: &str, _: [usize; 2], rows: &[usize]| match name {
            "lm_head.weight" => Ok(rows.iter().map(|row| vec![*row as f32, 1.0]).collect()),
            _ => Err(name.to_owned()),
        };
        let read = |name: &str, _: &[usize]| Err(name.to_owned());
        let both = score(Some(1)).read(read, rows).unwrap();
        assert_eq!((both.weight, both.bias), (vec![2.0, 0.0], vec![0.0]));
        let one = score(None).read(read, rows).unwrap();
        assert_eq!(one.weight, [3.0, 1.0]);
        let layer = Score::from(Linear::of("score", [1, 2], false));
        assert_eq!(layer.read(read, rows).unwrap_err(), "score.weight");
    }
}
