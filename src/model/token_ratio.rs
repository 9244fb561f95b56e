//! The length of texts in tokens, before they are tokenized.

use std::sync::atomic::{AtomicU64, Ordering};

use embedgate_request::{Input, MOST_COUNTED};

use super::Model;

/// Tokens a byte of text, lately: for estimates before a text is tokenized.
pub(super) struct TokenRatio(AtomicU64);

impl TokenRatio {
    /// English has about 4 bytes a token, which is a start.
    /// The ratio before any text was seen.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0.25_f64.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn observe(&self, bytes: usize, tokens: usize) {
        if bytes > 0 {
            let ratio = self.get() * 0.98 + tokens as f64 / bytes as f64 * 0.02;
            self.0.store(ratio.to_bits(), Ordering::Relaxed);
        }
    }
}

impl Model {
    /// About how many tokens an input has, at least 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length times a small positive number"
    )]
    pub(crate) fn estimate_tokens(&self, input: &Input) -> usize {
        let n = match input {
            Input::Text(text) => (text.len() as f64 * self.token_ratio.get()) as usize,
            Input::Tokens(ids) => ids.len(),
        };
        n.clamp(1, self.info.max_sequence_tokens)
    }

    /// Returns the tokens that an input counts for when memory is reserved for results by token. The result has a lower
    /// bound, because the estimate follows the latest texts and no caller may bring it near 0.
    #[must_use]
    pub(crate) fn reserve_tokens(&self, input: &Input) -> usize {
        let least = match input {
            Input::Text(text) => text.len() / 4 + 4,
            Input::Tokens(ids) => ids.len(),
        };
        let n = self.estimate_tokens(input).max(least);
        n.min(self.info.max_sequence_tokens)
    }

    /// Learns how many tokens texts have; not of one that was not counted to its end.
    pub(super) fn observe_ratio(&self, bytes: usize, n_tokens: usize) {
        if n_tokens <= MOST_COUNTED {
            self.token_ratio.observe(bytes, n_tokens);
        }
    }
}
