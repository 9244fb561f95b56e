//! Turns texts into the model's tokens, on threads of their own.

mod load;
pub(crate) mod pair;
mod parts;
mod pool;
mod settings;
mod slices;
pub(crate) mod template;
pub(crate) mod vocabulary;
mod vocabulary_files;
mod without_special;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use embedgate_request::{Side, Truncation};
use tokenizers::Tokenizer;

use self::slices::Slicing;
pub(crate) use self::{
    parts::{Cutting, Parts},
    pool::{TOKENIZER, TokenizerPool},
};

/// The tokens of one input, cut to the model's longest sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The segment of each token of a pair; empty for one text.
    pub type_ids: Vec<u32>,
    /// Tokens of the whole input: more than `ids` holds where it was cut. More than
    /// [`MOST_COUNTED`](embedgate_request::MOST_COUNTED) are not counted.
    pub n_tokens_full: usize,
}

impl Tokenized {
    /// Takes the model's own ids as they are, cut on one side.
    #[must_use]
    pub fn native(ids: &[u32], max_tokens: usize, side: Side) -> Self {
        let n_over = ids.len().saturating_sub(max_tokens);
        let kept = match side {
            Side::Left => &ids[n_over..],
            Side::Right => &ids[..ids.len() - n_over],
        };
        Self {
            ids: kept.to_vec(),
            type_ids: Vec::new(),
            n_tokens_full: ids.len(),
        }
    }
}

/// The tokenizer of one model.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Tokenizer>,
    slicing: Slicing,
    side: Side,
    max_tokens: usize,
    /// Special tokens that the post-processor puts around a text.
    n_added: usize,
    /// Special tokens that the post-processor puts around and between two texts.
    n_added_to_pair: usize,
    /// Where texts get no special tokens: the id that stands for a text without tokens.
    bare: Option<u32>,
    /// The template that pairs go through, where they do so.
    template: Option<Arc<pair::Templated>>,
}

/// The reason why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TokenizerError {
    path: String,
    problem: String,
}

impl TextTokenizer {
    /// The side that a text loses where a request says nothing of it.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Token ids of one text, with special tokens, cut so that these stay.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn encode(&self, text: &str) -> Result<Tokenized, String> {
        let truncation = Truncation::Cut {
            side: Side::Right,
            most: None,
        };
        self.encode_unless(text, truncation, || false)
    }

    /// Encodes a text as [`Self::encode`] does, but cut as asked. It gives up between two slices of a long text once
    /// `given_up` returns true.
    fn encode_unless(
        &self,
        text: &str,
        truncation: Truncation,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        unpanicked(|| {
            // Special tokens stay.
            let most = truncation.most_tokens(self.max_tokens);
            let room = most.saturating_sub(self.n_added);
            let (encoding, n) =
                self.encode_without_special(text, room, truncation.side(), given_up)?;
            let encoding = self
                .inner
                .post_process(encoding, None, self.bare.is_none())
                .map_err(|e| e.to_string())?;
            let mut ids = encoding.get_ids().to_vec();
            if ids.is_empty() {
                ids.extend(self.bare);
            }
            Ok(Tokenized {
                ids,
                type_ids: Vec::new(),
                n_tokens_full: n + self.n_added,
            })
        })?
    }
}

/// The library panics on some damaged files and on texts that meet them.
fn unpanicked<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|_| "the tokenizer cannot handle it: its file is damaged".to_owned())
}

#[cfg(test)]
mod random_texts;
#[cfg(test)]
mod tests;
