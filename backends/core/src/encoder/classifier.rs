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
    /// Reads the layer, as one output. `read` gives the tensor of a name and a shape, `row` one row of a matrix.
    ///
    /// # Errors
    /// The first that `read` or `row` gives.
    pub fn read<E>(
        &self,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
        row: impl Fn(&str, [usize; 2], usize) -> Result<Vec<f32>, E>,
    ) -> Result<LinearValues, E> {
        match self {
            Self::Layer(layer) => layer.read(read),
            Self::Logits {
                name,
                shape,
                tokens,
            } => {
                let mut weight = row(name, *shape, tokens.yes as usize)?;
                if let Some(no) = tokens.no {
                    let no = row(name, *shape, no as usize)?;
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
        let row = |name: &str, _: [usize; 2], row: usize| match name {
            "lm_head.weight" => Ok(vec![row as f32, 1.0]),
            _ => Err(name.to_owned()),
        };
        let read = |name: &str, _: &[usize]| Err(name.to_owned());
        let both = score(Some(1)).read(read, row).unwrap();
        assert_eq!((both.weight, both.bias), (vec![2.0, 0.0], vec![0.0]));
        let one = score(None).read(read, row).unwrap();
        assert_eq!(one.weight, [3.0, 1.0]);
        let layer = Score::from(Linear::of("score", [1, 2], false));
        assert_eq!(layer.read(read, row).unwrap_err(), "score.weight");
    }
}
