//! The settings of a tokenizer that a folder states outside `tokenizer.json`: in `tokenizer_config.json` and
//! `special_tokens_map.json`.
//!
//! The reference builds most of a tokenizer anew from these files and takes the vocabulary alone from `tokenizer.json`; what
//! they say wins. Source: transformers 5.24, `tokenization_utils_tokenizers.py` and the tokenizers of BERT, RoBERTa,
//! XLM-RoBERTa and CamemBERT.

pub(super) mod file;

use std::collections::BTreeMap;

use serde::Deserialize;

/// The settings of a tokenizer that a folder states outside `tokenizer.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerSettings {
    /// True when texts are put in lower case before the tokenizer, as sentence-transformers does where its settings say
    /// so.
    pub lower_case: bool,
    /// The scheme that splits texts in the tokenizer; none: the one that `tokenizer.json` states.
    pub scheme: Option<TokenizerScheme>,
    /// True when a text that is too long loses its beginning; none: as `tokenizer.json` states.
    pub cut_left: Option<bool>,
    /// True when special tokens within a text are taken as text.
    pub split_special_tokens: bool,
    /// Tokens that are found in texts as a whole, by their number where it is said.
    pub added_tokens: Vec<(Option<u32>, AddedToken)>,
    /// Tokens of T5 for what is left out of a text, where their number is said.
    pub extra_ids: Option<usize>,
    /// Where texts get no special tokens: the id that stands for a text without tokens.
    pub bare: Option<u32>,
    /// The tokens at the beginning and at the end of a text, where they are said.
    pub begin_and_end: [Option<String>; 2],
    /// The class in transformers: as the folder names it, else that of the model's type; empty where there is none.
    pub class: String,
    /// The special tokens that are said, by their names, such as `pad_token`.
    pub named_tokens: BTreeMap<&'static str, AddedToken>,
}

/// The scheme that splits texts into pieces, which are looked up in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerScheme {
    /// `BertTokenizer` and its like, where the vocabulary is one of WordPiece.
    Bert {
        /// True when letters are put in lower case.
        lower_case: bool,
        /// True when accents are removed; none: as `lower_case` states.
        strip_accents: Option<bool>,
        /// True when each Chinese character is a word of its own.
        split_chinese: bool,
    },
    /// `RobertaTokenizer`, where the vocabulary is one of BPE.
    Roberta {
        /// True when a text gets a space in front.
        prefix_space: bool,
    },
    /// `DebertaV2Tokenizer`, where the vocabulary is one of Unigram.
    DebertaV2 {
        /// True when letters are put in lower case.
        lower_case: bool,
        /// True when each sign of punctuation is a word of its own.
        split_punctuation: bool,
        /// True when a text gets a space in front of each of its parts, not of the first alone.
        prefix_space: bool,
    },
    /// `AlbertTokenizer`, where the vocabulary is one of Unigram.
    Albert {
        /// True when letters are put in lower case.
        lower_case: bool,
        /// True when accents stay.
        keep_accents: bool,
        /// True when a text gets a space in front.
        prefix_space: bool,
    },
    /// `Qwen2Tokenizer`, where the vocabulary is one of BPE: each piece of a text gets a space in front.
    Qwen2WithPrefix,
    /// `XLMRobertaTokenizer` and `CamembertTokenizer`, where the vocabulary is one of Unigram, without the space in front of
    /// words. (With it, what `tokenizer.json` says holds.)
    XlmRobertaWithoutPrefix,
}

/// A token that is found in texts as a whole.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct AddedToken {
    /// As it stands in texts.
    pub content: String,
    /// True when white space before the token belongs to it.
    pub lstrip: bool,
    /// True when white space after the token belongs to it.
    pub rstrip: bool,
    /// True when the token is looked for after normalization.
    pub normalized: bool,
    /// True when the token is found as a whole word alone.
    pub single_word: bool,
    /// True when the token is left out of decoded texts.
    pub special: bool,
}
