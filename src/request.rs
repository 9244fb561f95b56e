//! One embedding request and its answer, whatever the dialect.

use std::{sync::Arc, time::Instant};

use embedgate_core::{Matrix, Outputs, SparseVector};

use crate::{limits::Allowance, spent::Spent};

/// A request for embeddings, parsed and not yet validated against the model.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The model's name or alias as the client sent it; none means the default model.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// What is asked of each input.
    pub outputs: Outputs,
    /// The text that dense vectors will be written as, if any: then [`Dense::Text`] is welcome.
    pub text: Option<VectorText>,
    /// Whether the inputs are queries or documents, where the client says.
    pub kind: InputKind,
    /// The model's prompt to put in front of texts, by name; none means the one for `kind`, else the model's default.
    pub prompt_name: Option<String>,
    /// The end user, as the client names them.
    pub user: Option<String>,
    /// Members of the body that mean nothing to the dialect, as JSON text, where somebody wants them.
    pub extra: Vec<(String, String)>,
    /// How token ids are to be read where the model's config leaves it to the dialect.
    pub token_ids: TokenIds,
    /// Cut vectors to so many dimensions.
    pub dimensions: Option<usize>,
    /// Whether dense vectors get length 1; none means as the model's config says.
    pub normalize: Option<bool>,
    /// Whether an over-long input is cut or refused; none means as the model's config says.
    pub truncate: Option<bool>,
    /// Where it is cut.
    pub side: Side,
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
            side: Side::Right,
        }
    }
}

/// A side of a text, in the order of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Its beginning.
    Left,
    /// Its end.
    #[default]
    Right,
}

/// What becomes of an input with more tokens than the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// It is refused.
    Refuse,
    /// Tokens are cut off on one side.
    Cut(Side),
}

impl Truncation {
    /// The side that loses tokens: also of an input that is counted before it is refused.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::Refuse => Side::Right,
            Self::Cut(side) => side,
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
    /// How much there is to read of all of them.
    #[must_use]
    pub fn total_bytes(inputs: &[Self]) -> usize {
        inputs.iter().map(Self::bytes).sum()
    }

    /// How much there is to read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
        }
    }
}

/// What the inputs are for.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct NamePattern(pub String);

impl NamePattern {
    /// Whether it stands for this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.0 == name,
        }
    }
}

/// What token ids from a client mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// What becomes of documents to rank that are longer than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongDocuments {
    /// They are cut, or refused, as any over-long text.
    #[default]
    Truncate,
    /// They are scored in windows that overlap, and the best one counts.
    Windows,
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
    /// Headers that plugins add to the answer.
    pub headers: Vec<(String, String)>,
}

/// What was cut of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its place among the inputs, or among the documents; none: it is the query that they are ranked for.
    pub index: Option<usize>,
    /// Tokens of the whole.
    pub from: usize,
    /// Tokens that the model saw.
    pub to: usize,
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
    /// A vector for each token, as the last layer gives it.
    pub token_vectors: Option<Matrix>,
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
    /// As the text that was asked for: kept for vectors that are asked for again and again.
    Text(Arc<str>),
}

/// How a dense vector is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorText {
    /// An array of numbers, each of which round-trips to the same f32.
    Numbers,
    /// A string: little-endian f32 in padded standard base64.
    Base64,
}

impl VectorText {
    /// Appends a vector of finite numbers.
    pub fn write(self, vector: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::Numbers => serde_json::to_writer(out, vector)
                .expect("finite numbers into memory always succeed"),
            Self::Base64 => base64(vector, out),
        }
    }

    /// About how many bytes so many numbers take.
    #[must_use]
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Self::Numbers => numbers * 13 + 2,
            Self::Base64 => base64_simd::STANDARD.encoded_length(numbers * 4) + 2,
        }
    }
}

/// Numbers that are encoded at once: their bytes are a multiple of 3, so that only the last piece is padded.
const PIECE: usize = 768;

fn base64(vector: &[f32], out: &mut Vec<u8>) {
    let mut bytes = [0; PIECE * 4];
    out.push(b'"');
    for piece in vector.chunks(PIECE) {
        let bytes = &mut bytes[..size_of_val(piece)];
        for (four, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(piece) {
            *four = x.to_le_bytes();
        }
        base64_simd::STANDARD.encode_append(&*bytes, out);
    }
    out.push(b'"');
}

impl EmbedResponse {
    /// The inputs that were cut.
    pub fn cuts(&self) -> impl Iterator<Item = Cut> {
        let all = self.embeddings.iter().enumerate();
        let all = all.map(|(index, embedding)| Cut {
            index: Some(index),
            from: embedding.n_tokens_full,
            to: embedding.n_tokens,
        });
        all.filter(|cut| cut.from > cut.to)
    }

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
    /// Where its time goes.
    pub spent: Arc<Spent>,
}

/// Who a caller is.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Nobody was asked: the configuration lets anybody in.
    Anonymous,
    /// Somebody known by a key or by a plugin.
    Named(Arc<Identity>),
}

/// Somebody, and what they may do.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Stable name.
    pub subject: Arc<str>,
    /// The organization that they belong to.
    pub tenant: Option<String>,
    /// What they may do, in words of whoever authenticated them.
    pub scopes: Vec<String>,
    /// The models that they may use; none: all.
    pub allowed_models: Option<Vec<NamePattern>>,
    /// Whose cached results they share: equal names share.
    pub namespace: Arc<str>,
    /// The lane of their requests that name none.
    pub lane: Option<Lane>,
    /// What is left of the limit that they are under.
    pub allowance: Option<Arc<Allowance>>,
    /// More about them, for plugins.
    pub attributes: Vec<(String, String)>,
}

impl Principal {
    /// Who it is, where that is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Anonymous => None,
            Self::Named(identity) => Some(identity),
        }
    }

    /// What the principal's results in the cache go by; none where everybody is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        Some(&self.identity()?.namespace)
    }

    /// Whether the principal may use a model of these names.
    pub fn may_use<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let allowed = self
            .identity()
            .and_then(|identity| identity.allowed_models.as_ref());
        let Some(allowed) = allowed else {
            return true;
        };
        let is_allowed = |name| allowed.iter().any(|pattern| pattern.matches(name));
        names.into_iter().any(is_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_pieces_is_the_base64_of_the_whole() {
        for n in [1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5] {
            let vector: Vec<f32> = (0..n).map(|i| i as f32 * 0.37).collect();
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut out = Vec::new();
            VectorText::Base64.write(&vector, &mut out);
            let expected = format!("\"{}\"", base64_simd::STANDARD.encode_to_string(&bytes));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{n}");
        }
    }

    #[test]
    fn numbers_round_trip() {
        let vector = [0.1_f32, -1e-20, 3.402_823_5e38, 1.0 / 3.0, -0.0];
        let mut out = Vec::new();
        VectorText::Numbers.write(&vector, &mut out);
        let back: Vec<f32> = serde_json::from_slice(&out).unwrap();
        assert!(
            vector
                .iter()
                .zip(&back)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }
}
