//! One embedding request and its answer, whatever the dialect.

use std::{sync::Arc, time::Instant};

/// A request for embeddings, parsed and not yet validated against the model.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The model's name or alias as the client sent it; none means the default model.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// How token ids are to be read where the model's config leaves it to the dialect.
    pub token_ids: TokenIds,
    /// Cut vectors to so many dimensions.
    pub dimensions: Option<usize>,
    /// Whether an over-long input is cut or refused; none means as the model's config says.
    pub truncate: Option<bool>,
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
    /// How much there is to read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
        }
    }
}

/// What token ids from a client mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIds {
    /// `OpenAI`'s `cl100k_base`: decoded to text, which is what LangChain means by them.
    Cl100k,
    /// The model's own ids: they go to the model as they are, special tokens included.
    Native,
    /// Refused.
    Reject,
}

/// The answer: a vector an input, in the order of the inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedResponse {
    /// The model's name as the client sent it, or the default model's.
    pub model: String,
    /// A vector an input.
    pub embeddings: Vec<Embedding>,
    /// How many inputs were in the cache.
    pub n_cached: usize,
}

/// One input's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Cut and normalized as asked.
    pub vector: Vec<f32>,
    /// Tokens that the model saw, special tokens included.
    pub n_tokens: usize,
    /// Tokens of the whole input: more than `n_tokens` where it was cut.
    pub n_tokens_full: usize,
}

impl EmbedResponse {
    /// Tokens of all inputs, as billed.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.embeddings
            .iter()
            .map(|embedding| embedding.n_tokens)
            .sum()
    }
}

/// Who asks, under which id, until when. Only authentication makes one.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// As in the log and the `x-request-id` header.
    pub id: Arc<str>,
    /// Who the caller is.
    pub principal: Principal,
    /// When the request's time is over.
    pub deadline: Instant,
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody was asked: the config says `mode = "none"`.
    Anonymous,
    /// The bearer of the configured key with this number, from 0.
    Key(usize),
}
