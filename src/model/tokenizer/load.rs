//! Loads the tokenizer of a model folder.

use std::{path::Path, sync::Arc};

use embedgate_core::{TokenizerSettings, impostor};
use embedgate_request::Side;
use tokenizers::{Tokenizer, TruncationDirection};

use super::{TextTokenizer, TokenizerError, settings, slices::Slicing, unpanicked};

impl TextTokenizer {
    /// Loads `tokenizer.json` of a model folder, and does what the folder says beside it. Truncation and padding that the file
    /// may ask for are turned off: the cut is the model's longest sequence, and sequences are not padded here.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn load(
        folder: &Path,
        max_tokens: usize,
        settings: &TokenizerSettings,
    ) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let load = || {
            if !path.exists() {
                return Err(
                    "is missing: expected the tokenizer in the format of the tokenizers library"
                        .into(),
                );
            }
            if let Some(problem) = impostor(&path) {
                return Err(problem.into());
            }
            let read = || Self::read(&path, max_tokens, settings);
            let tokenizer = unpanicked(read).and_then(|read| read)?;
            tokenizer.check_special_tokens()?;
            Ok(tokenizer)
        };
        load().map_err(|problem| TokenizerError {
            path: path.display().to_string(),
            problem,
        })
    }

    fn read(path: &Path, max_tokens: usize, settings: &TokenizerSettings) -> Result<Self, String> {
        let mut inner = Tokenizer::from_file(path).map_err(|e| e.to_string())?;
        let cuts_left = || {
            inner
                .get_truncation()
                .map(|t| t.direction == TruncationDirection::Left)
        };
        let side = match settings.cut_left.or_else(cuts_left) {
            Some(true) => Side::Left,
            Some(false) | None => Side::Right,
        };
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        settings::apply(&mut inner, settings)?;
        let n_added = inner
            .encode_fast("", true)
            .map_err(|e| e.to_string())?
            .len();
        let n_added_to_pair = inner
            .encode_fast(("", ""), true)
            .map_err(|e| e.to_string())?
            .len();
        Ok(Self {
            slicing: Slicing::of(&inner),
            inner: Arc::new(inner),
            side,
            max_tokens,
            n_added,
            n_added_to_pair,
        })
    }

    /// Refuses a tokenizer whose special tokens leave no room, or that has none.
    fn check_special_tokens(&self) -> Result<(), String> {
        let (n_added, max_tokens) = (self.n_added, self.max_tokens);
        if n_added >= max_tokens {
            return Err(format!(
                "adds {n_added} special tokens, which leaves no room within {max_tokens} tokens"
            ));
        }
        if n_added == 0 {
            return Err("adds no special tokens: an empty text would have no token at all".into());
        }
        Ok(())
    }
}
