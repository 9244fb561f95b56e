//! The answer to one embedding request: a result for each input.

use std::{fmt, sync::Arc};

use embedgate_core::{Head, Row};

/// The answer: a result an input, in the order of the inputs.
#[derive(Clone, Debug)]
pub struct EmbedResponse {
    /// The model's name as the client sent it, or the default model's.
    pub model: String,
    /// A result an input.
    pub embeddings: Vec<Embedding>,
    /// The number of inputs that were in the cache.
    pub n_cached: usize,
    /// Headers that plugins add to the answer.
    pub headers: Vec<(String, String)>,
}

impl EmbedResponse {
    /// The inputs that were cut.
    pub fn cuts(&self) -> impl Iterator<Item = Cut> {
        let all = self.embeddings.iter().enumerate();
        let all = all.map(|(index, embedding)| Cut {
            index: Some(index),
            from: embedding.n_tokens_full,
            to: embedding.n_tokens,
        });
        all.filter(|cut| cut.from > cut.to)
    }

    /// Tokens of all inputs, as billed.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.embeddings
            .iter()
            .map(|embedding| embedding.n_tokens)
            .sum()
    }
}

/// The most tokens that are counted in a text. Of a longer text, only the part that can stay is read, and further
/// tokens are not counted.
pub const MOST_COUNTED: usize = 100_000;

/// The tokens of an input before and after a cut. Shown as `from>to`, with `>` in front where there were more than are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its place among the inputs, or among the documents; none: it is the query that they are ranked for.
    pub index: Option<usize>,
    /// Tokens of the whole; more than [`MOST_COUNTED`] are not counted.
    pub from: usize,
    /// Tokens that the model saw.
    pub to: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, counted) = (self.to, MOST_COUNTED.max(self.to));
        match self.from {
            from if from > counted => write!(f, ">{counted}>{to}"),
            from => write!(f, "{from}>{to}"),
        }
    }
}

/// The results of one input: those that were asked for are set.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The results, finished as asked: dense vectors are cut and normalized, vectors of tokens normalized where their head says so.
    pub results: Row,
    /// The dense vector as the text that was asked for: kept for vectors that are asked for again and again. Then `results` does not
    /// have it.
    pub dense_text: Option<Arc<str>>,
    /// Tokens that the model saw, special tokens included.
    pub n_tokens: usize,
    /// Tokens of the whole input: more than `n_tokens` where it was cut.
    pub n_tokens_full: usize,
}

impl Embedding {
    /// The dense vector, where it was asked for.
    #[must_use]
    pub fn dense(&self) -> Option<Dense<'_>> {
        match &self.dense_text {
            Some(text) => Some(Dense::Text(text)),
            None => self.results.vector(Head::Dense).map(Dense::Numbers),
        }
    }
}

/// A dense vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dense<'a> {
    /// As numbers.
    Numbers(&'a [f32]),
    /// As the text that was asked for.
    Text(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_says_where_tokens_were_not_counted() {
        let shown = |from, to| {
            Cut {
                index: None,
                from,
                to,
            }
            .to_string()
        };
        assert_eq!(shown(8500, 8192), "8500>8192");
        assert_eq!(shown(MOST_COUNTED, 8192), "100000>8192");
        assert_eq!(shown(MOST_COUNTED + 3, 8192), ">100000>8192");
        assert_eq!(shown(200_001, 200_000), ">200000>200000");
    }
}
