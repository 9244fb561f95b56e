//! The words that requests, the configuration and plugins share: lanes, routes, names of models, hooks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A side of a text, in the order of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Its beginning.
    Left,
    /// Its end.
    #[default]
    Right,
}

/// The treatment of an input with more tokens than the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// It is refused.
    Refuse,
    /// Tokens are cut off.
    Cut {
        /// On this side.
        side: Side,
        /// Until there are so many, special tokens included; none: as many as the model takes.
        most: Option<usize>,
    },
}

impl Truncation {
    /// The side that loses tokens: also of an input that is counted before it is refused.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::Refuse => Side::Right,
            Self::Cut { side, .. } => side,
        }
    }

    /// The most tokens that an input keeps, where the model takes so many.
    #[must_use]
    pub fn most_tokens(self, of_model: usize) -> usize {
        match self {
            Self::Refuse => of_model,
            Self::Cut { most, .. } => most.map_or(of_model, |most| most.min(of_model)),
        }
    }
}

/// The purpose of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputKind {
    /// The client does not say.
    #[default]
    Unspecified,
    /// They are searched with.
    Query,
    /// They are searched for.
    Document,
}

/// A route that the configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// `POST /v1/embeddings` and its aliases.
    Embeddings,
    /// `GET /v1/models` and below.
    Models,
    /// `POST /embed` and the other routes of text-embeddings-inference.
    Tei,
    /// `POST /api/embed` and the other routes of Ollama.
    Ollama,
    /// `POST /v2/embed`.
    Cohere,
    /// `POST /v1/rerank` and its neighbours.
    Rerank,
}

impl Route {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Tei => "tei",
            Self::Ollama => "ollama",
            Self::Cohere => "cohere",
            Self::Rerank => "rerank",
        }
    }
}

/// A model's name or alias; or the beginning of names, where it ends in `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct NamePattern(pub String);

impl NamePattern {
    /// Returns true when the pattern matches this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.0 == name,
        }
    }
}

/// The meaning of token ids from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenIds {
    /// `OpenAI`'s `cl100k_base`: decoded to text, which is what LangChain means by them.
    Cl100k,
    /// `OpenAI`'s `o200k_base`, of its newer models: decoded to text.
    O200k,
    /// The model's own ids: they go to the model as they are, special tokens included.
    Native,
    /// Refused.
    Reject,
}

/// The treatment of documents to rank that are longer than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LongDocuments {
    /// They are cut, or refused, as any over-long text.
    #[default]
    Truncate,
    /// They are scored in windows that overlap, and the best one counts.
    Windows,
}

/// Which of the two queues of a model a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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

/// A place where a plugin is asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Asks an authenticator: who is the caller?
    Authenticate,
    /// Asks a preprocessor: which parts of the request change?
    Preprocess,
    /// A request has ended.
    Observe,
}

impl Hook {
    /// Each once.
    pub const ALL: [Self; 3] = [Self::Authenticate, Self::Preprocess, Self::Observe];

    /// As in the configuration and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Preprocess => "preprocess",
            Self::Observe => "observe",
        }
    }
}
