//! One embedding request, whatever the dialect.

use embedgate_core::Outputs;

use crate::{InputKind, Side, TokenIds, VectorText};

/// A request for embeddings, parsed and not yet validated against the model.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The model's name or alias as the client sent it; none means the default model.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// The outputs that are asked for each input.
    pub outputs: Outputs,
    /// The text that dense vectors will be written as, if any: then [`Embedding::dense_text`](crate::Embedding::dense_text) is welcome.
    pub text: Option<VectorText>,
    /// The kind of the inputs, queries or documents, where the client states it.
    pub kind: InputKind,
    /// The model's prompt to put in front of texts, by name; none means the one for `kind`, else the model's default.
    pub prompt_name: Option<String>,
    /// The end user, as the client names them.
    pub user: Option<String>,
    /// Members of the body that mean nothing to the dialect, as JSON text, where somebody wants them.
    pub extra: Vec<(String, String)>,
    /// The meaning of token ids, where the model's config leaves it to the dialect.
    pub token_ids: TokenIds,
    /// Cut vectors to so many dimensions.
    pub dimensions: Option<usize>,
    /// True when dense vectors are normalized to length 1; none means as the model's config says.
    pub normalize: Option<bool>,
    /// True when an over-long input is cut, false when it is refused; none means as the model's config says.
    pub truncate: Option<bool>,
    /// The side on which an over-long input is cut.
    pub side: Option<Side>,
    /// Cut inputs to so many tokens, special tokens included.
    pub max_tokens: Option<usize>,
}

impl EmbedRequest {
    /// Asks the default model for dense vectors, in its own way.
    #[must_use]
    pub fn new(inputs: Vec<Input>) -> Self {
        Self {
            model: None,
            inputs,
            outputs: Outputs::DENSE,
            text: None,
            kind: InputKind::Unspecified,
            prompt_name: None,
            user: None,
            extra: Vec::new(),
            token_ids: TokenIds::Native,
            dimensions: None,
            normalize: None,
            truncate: None,
            side: None,
            max_tokens: None,
        }
    }
}

/// One thing to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text.
    Text(String),
    /// Token ids, at least one.
    Tokens(Vec<u32>),
}

impl Input {
    /// Returns the size of all inputs together, in bytes.
    #[must_use]
    pub fn total_bytes(inputs: &[Self]) -> usize {
        inputs.iter().map(Self::bytes).sum()
    }

    /// The text; empty where it is token ids.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Tokens(_) => "",
        }
    }

    /// Returns the size of the input, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
        }
    }
}
