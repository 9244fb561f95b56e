//! One embedding request and its answer, whatever the dialect.

use std::{sync::Arc, time::Instant};

use embedgate_core::{Matrix, Outputs, SparseVector};

/// A request for embeddings, parsed and not yet validated against the model.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The model's name or alias as the client sent it; none means the default model.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// What is asked of each input.
    pub outputs: Outputs,
    /// Whether dense vectors will be written as JSON numbers: then [`Dense::Json`] is welcome.
    pub as_json: bool,
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

/// Which of the two queues of a model a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody waits for the answer: goes first.
    Query,
    /// Indexing, which can wait: goes when no query waits, and never starves.
    Bulk,
}

impl Lane {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Query, Self::Bulk];

    /// As in the configuration, headers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Bulk => "bulk",
        }
    }
}

/// The answer: a result an input, in the order of the inputs.
#[derive(Clone, Debug)]
pub struct EmbedResponse {
    /// The model's name as the client sent it, or the default model's.
    pub model: String,
    /// A result an input.
    pub embeddings: Vec<Embedding>,
    /// How many inputs were in the cache.
    pub n_cached: usize,
}

/// One input's result: what was asked for is set.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Its dense vector, cut and normalized as asked.
    pub dense: Option<Dense>,
    /// Its lexical weights.
    pub sparse: Option<SparseVector>,
    /// A vector of length 1 for each token but the first.
    pub multi_vector: Option<Matrix>,
    /// Tokens that the model saw, special tokens included.
    pub n_tokens: usize,
    /// Tokens of the whole input: more than `n_tokens` where it was cut.
    pub n_tokens_full: usize,
}

/// A dense vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Dense {
    /// As numbers.
    Numbers(Vec<f32>),
    /// As a JSON array of the numbers, each of which round-trips: kept for vectors that are asked for again and again.
    Json(Arc<str>),
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
    /// The lane that the caller or their key's configuration asks for.
    pub lane: Option<Lane>,
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody was asked: the config says `mode = "none"`.
    Anonymous,
    /// The bearer of a configured key, by the key's name.
    Named(Arc<str>),
}

impl Principal {
    /// What the principal's results in the cache go by; none where everybody is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Named(name) => Some(name),
        }
    }
}
