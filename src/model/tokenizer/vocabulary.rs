//! The vocabulary: tokens by name, one by one, and back to text.

use super::{TextTokenizer, unpanicked};

/// One token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// As it stands in the vocabulary.
    pub name: String,
    /// The place of its begin and its end in the text, in characters; none for a special token.
    pub place: Option<(usize, usize)>,
}

impl TextTokenizer {
    /// The tokens of a text one by one, not cut.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn tokens(&self, text: &str, with_special: bool) -> Result<Vec<Token>, String> {
        unpanicked(|| {
            let encoding = self
                .inner
                .encode_char_offsets(text, with_special && self.bare.is_none())
                .map_err(|e| e.to_string())?;
            let ids = encoding.get_ids().iter().zip(encoding.get_tokens());
            let places = encoding
                .get_offsets()
                .iter()
                .zip(encoding.get_special_tokens_mask());
            Ok(ids
                .zip(places)
                .map(|((id, name), (place, special))| Token {
                    id: *id,
                    name: name.clone(),
                    place: (*special == 0).then_some(*place),
                })
                .collect())
        })?
    }

    /// The text of token ids. An id outside of the vocabulary stands for nothing.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        unpanicked(|| {
            self.inner
                .decode(ids, skip_special)
                .map_err(|e| e.to_string())
        })?
    }

    /// A token as it stands in the vocabulary; none where there is no such id.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its name; none where the vocabulary has no such token.
    #[must_use]
    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// The largest id that the tokenizer can give.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// Ids of the tokens that never get a sparse weight, sorted: begin, end, padding and unknown.
    #[must_use]
    pub fn special_token_ids(&self) -> Vec<u32> {
        let names = [
            "<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]",
        ];
        let mut ids: Vec<u32> = names
            .iter()
            .filter_map(|name| self.inner.token_to_id(name))
            .collect();
        ids.sort_unstable();
        ids
    }
}
