//! Loads the tokenizer of a model folder.

use std::{path::Path, sync::Arc};

use embedgate_core::{TokenizerSettings, impostor};
use embedgate_request::Side;
use tokenizers::{Tokenizer, TruncationDirection};

use super::{
    TextTokenizer, TokenizerError, pair::Templated, settings, slices::Slicing,
    template::PairTemplate, unpanicked, vocabulary_files,
};

impl TextTokenizer {
    /// Loads `tokenizer.json` of a model folder, or its vocabulary where there is no such file, and does what the folder says beside it. Truncation and padding that the file
    /// may ask for are turned off: the cut is the model's longest sequence, and sequences are not padded here.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn load(
        folder: &Path,
        max_tokens: usize,
        settings: &TokenizerSettings,
    ) -> Result<Self, TokenizerError> {
        let tokenizer = Self::load_any(folder, max_tokens, settings)?;
        let checked = tokenizer.check_special_tokens();
        checked.map_err(|problem| Self::damaged(folder, problem))?;
        Ok(tokenizer)
    }

    /// Loads a tokenizer whose pairs go through a template, which has special tokens where the model needs them.
    ///
    /// # Errors
    /// As [`TextTokenizer::load`].
    pub(crate) fn load_with_template(
        folder: &Path,
        max_tokens: usize,
        settings: &TokenizerSettings,
        template: PairTemplate,
    ) -> Result<Self, TokenizerError> {
        let mut tokenizer = Self::load_any(folder, max_tokens, settings)?;
        let templated = unpanicked(|| Templated::new(template, &tokenizer.inner, max_tokens));
        let templated = templated
            .and_then(|made| made)
            .map_err(|problem| Self::damaged(folder, format!("the template of pairs {problem}")))?;
        tokenizer.template = Some(Arc::new(templated));
        Ok(tokenizer)
    }

    fn damaged(folder: &Path, problem: String) -> TokenizerError {
        TokenizerError {
            path: folder.join("tokenizer.json").display().to_string(),
            problem,
        }
    }

    /// Loads a tokenizer that may have no special tokens.
    ///
    /// # Errors
    /// As [`TextTokenizer::load`].
    pub(crate) fn load_any(
        folder: &Path,
        max_tokens: usize,
        settings: &TokenizerSettings,
    ) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let load = || {
            let read = || {
                let inner = match path.exists() {
                    false => vocabulary_files::build(folder, settings)?,
                    true => match impostor(&path) {
                        Some(problem) => return Err(problem.into()),
                        None => Tokenizer::from_file(&path).map_err(|e| e.to_string())?,
                    },
                };
                Self::of(inner, max_tokens, settings)
            };
            unpanicked(read).and_then(|read| read)
        };
        load().map_err(|problem| Self::damaged(folder, problem))
    }

    fn of(
        mut inner: Tokenizer,
        max_tokens: usize,
        settings: &TokenizerSettings,
    ) -> Result<Self, String> {
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
        let is_bare = settings.bare.is_some();
        let n_added = inner
            .encode_fast("", !is_bare)
            .map_err(|e| e.to_string())?
            .len();
        let n_added_to_pair = inner
            .encode_fast(("", ""), !is_bare)
            .map_err(|e| e.to_string())?
            .len();
        Ok(Self {
            slicing: Slicing::of(&inner),
            inner: Arc::new(inner),
            side,
            max_tokens,
            n_added,
            n_added_to_pair,
            bare: settings.bare,
            template: None,
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
        if n_added == 0 && self.bare.is_none() {
            return Err("adds no special tokens: an empty text would have no token at all".into());
        }
        Ok(())
    }
}
