//! `[models.NAME]`.

mod check;

use std::{collections::BTreeMap, path::PathBuf};

use embedgate_core::{Head, Pooling};
use embedgate_request::{Lane, LongDocuments, TokenIds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackendConfig, ByteSize, Period, ReplicaCount, Source};

/// One model. What is not said is read from the model's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct ModelConfig {
    /// The model's folder as sentence-transformers or FlagEmbedding lay it out: `config.json`, `tokenizer.json`,
    /// weights (`model.safetensors`, its shards, or `pytorch_model.bin`), and the rest of what the hub has.
    pub path: PathBuf,
    /// The model of a hub that the folder can be fetched from, by `embedgate serve --pull` or `embedgate pull NAME`: a
    /// model of both hubs (`"BAAI/bge-m3"`), of one (`"modelscope:BAAI/bge-m3"`, `"hf:BAAI/bge-m3"`), in a revision
    /// (`"hf:BAAI/bge-m3@5617a9f"`). Without it: the folder must be there.
    pub source: Option<Source>,
    /// The time when the model is loaded: at the `"start"`, or `"on_demand"`, by the first request that names it, which
    /// waits for it.
    pub load: LoadTime,
    /// A model that is loaded on demand leaves the memory after so long without a request. Without it: never, unless
    /// another needs its memory (`server.max_model_memory`).
    pub idle: Option<Period>,
    /// A reload that changes the model stops it before it loads the new one, for models that do not fit in memory
    /// twice: meanwhile requests get 503 with Retry-After.
    pub stop_first: bool,
    /// Files of the folder and the sha256 that each must have, as `sha256sum` prints it: `{ "model.safetensors" =
    /// "0123...", ... }`. The model is refused where one differs: most damaged weights give wrong vectors and no error.
    /// Each start reads the named files.
    pub sha256: BTreeMap<String, String>,
    /// Other names that clients may use.
    pub aliases: Vec<String>,
    /// The backend that runs the model, and its device.
    pub backend: BackendConfig,
    /// The method that makes one vector of token vectors: `"cls"`, `"mean"`, `"last"`, `"max"`, `"mean_sqrt_len"` or
    /// `"weighted_mean"`, or several of them one after the other (`"cls+mean"`). Without it: as the folder says, else
    /// `"mean"`.
    #[schemars(with = "Option<String>")]
    pub pooling: Option<Pooling>,
    /// The tokens with which a language model answers whether a text belongs to a query, first for no, then for yes: it
    /// is served as a reranker. Qwen3-Reranker needs `["no", "yes"]`; the default prompt is its instruction. Without
    /// it: as the folder's `modules.json` says.
    pub classifier_from_token: Option<[String; 2]>,
    /// The task whose adapter (LoRA) is added to the weights, of a model whose weights have one for each task, as
    /// jina-embeddings-v3. Its prompt is put in front of every text. Without it: the weights as they are.
    pub adapter: Option<String>,
    /// The route that is served of a folder whose `modules.json` names a Router. Without it: the default one.
    pub route: Option<String>,
    /// The model that serves queries (`input_type` or task of requests, queries of rerankings) in the place of this
    /// one, such as one of the same folder with another adapter or route. Without it: this one.
    pub query_model: Option<String>,
    /// True where vectors get length 1. Without it: as the folder's `modules.json` says, and true where there is none.
    pub normalize: Option<bool>,
    /// Longest input in tokens, special tokens included. Without it: as the folder says.
    pub max_length: Option<usize>,
    /// True where longer inputs are cut (the answer's header x-truncated says so); false where they are refused with
    /// 400.
    pub truncate: bool,
    /// Texts that can be put in front of inputs, by name, beside those of the folder. Requests choose by `prompt_name`;
    /// those with `input_type = "query"` get the one named query, those with `"document"` the one named document,
    /// passage or corpus.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is put in front of every text; `""` for none. Without it: as the folder says.
    pub default_prompt: Option<String>,
    /// The meaning of arrays of token ids: `"cl100k"` (OpenAI's, as LangChain sends them), `"o200k"` (of OpenAI's newer
    /// models), `"native"` (the model's own) or `"reject"`. Without it: what the route's dialect means by them, which
    /// is cl100k on `/v1/embeddings`.
    pub token_ids: Option<TokenIds>,
    /// The effect of a request's `"dimensions"` below the model's own: `"cut"` (and renormalize) or `"refuse"`.
    pub dimensions: DimensionsPolicy,
    /// The weights of a model's results in the mean that it reranks by (`/v1/rerank`); those that it does not give are
    /// left out.
    pub rerank: RerankWeights,
    /// The treatment of documents to rank that are longer than the model takes: `"truncate"`, or `"windows"` that
    /// overlap, of which the best one counts. Requests may say so themselves (`long_documents`).
    pub long_documents: LongDocuments,
    /// Inputs that may wait or run at once; a request that does not fit as a whole gets 429. At least
    /// `server.max_inputs`.
    pub queue_capacity: usize,
    /// Most tokens in one forward pass, padding included; a longer input goes alone. Without it: what a measurement at
    /// the load finds best.
    pub max_batch_tokens: Option<usize>,
    /// While queries arrive, bulk goes in batches of at most this time, as far as its inputs allow: a query waits for
    /// one such batch at most.
    pub max_batch_time: Period,
    /// Bulk gets a batch at least this often, whatever the queries.
    pub bulk_max_wait: Period,
    /// A query that has more work than this ahead of it in the queue is refused at once (429), with the time to come
    /// back; its own work does not count.
    pub max_queue_time: Period,
    /// The same for bulk: bulk that has more work than this ahead of it is refused at once.
    pub bulk_max_queue_time: Period,
    /// The lane of requests that name none (x-embedgate-lane), and whose key names none: `"query"` or `"bulk"`. Without
    /// it: by size, a few short inputs are a query.
    pub lane: Option<Lane>,
    /// Copies of the backend that run side by side, each with so many threads as `backend.threads` says. `"auto"`
    /// measures, once, how many are clearly faster than fewer where there are many callers; a caller that is alone has
    /// the threads of one.
    pub replicas: ReplicaCount,
    /// Threads that turn text into tokens.
    pub tokenizer_threads: usize,
    /// The model is refused where its weights, and what it takes to run its longest batch, are more than this. Without
    /// it: where they are more than the machine has, or a control group that embedgate runs in. Not for `"onnx"`, which
    /// is not judged, nor for `"cuda"`.
    pub max_memory: Option<ByteSize>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            source: None,
            load: LoadTime::Start,
            idle: None,
            stop_first: false,
            sha256: BTreeMap::new(),
            aliases: Vec::new(),
            backend: BackendConfig::default(),
            pooling: None,
            normalize: None,
            classifier_from_token: None,
            adapter: None,
            route: None,
            query_model: None,
            max_length: None,
            truncate: true,
            prompts: BTreeMap::new(),
            default_prompt: None,
            token_ids: None,
            dimensions: DimensionsPolicy::Cut,
            rerank: RerankWeights::default(),
            long_documents: LongDocuments::Truncate,
            queue_capacity: 8192,
            max_batch_tokens: None,
            max_batch_time: Period::milliseconds(200),
            bulk_max_wait: Period::seconds(2),
            max_queue_time: Period::seconds(5),
            bulk_max_queue_time: Period::seconds(30),
            lane: None,
            replicas: ReplicaCount::Fixed(1),
            tokenizer_threads: 2,
            max_memory: None,
        }
    }
}

impl ModelConfig {
    /// Returns a copy with the settings of `other` that a loaded model can take over: they concern requests, not the
    /// loaded weights.
    #[must_use]
    pub fn with_settings_of_requests(&self, other: &Self) -> Self {
        Self {
            source: other.source.clone(),
            load: other.load,
            idle: other.idle,
            stop_first: other.stop_first,
            aliases: other.aliases.clone(),
            query_model: other.query_model.clone(),
            truncate: other.truncate,
            prompts: other.prompts.clone(),
            default_prompt: other.default_prompt.clone(),
            token_ids: other.token_ids,
            dimensions: other.dimensions,
            rerank: other.rerank,
            long_documents: other.long_documents,
            lane: other.lane,
            ..self.clone()
        }
    }
}

/// The time when a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadTime {
    /// With the gateway.
    #[default]
    Start,
    /// By the first request that names it.
    OnDemand,
}

/// Weights of a mean, each at least 0.
///
/// Source: FlagEmbedding 1.4.2, `inference/embedder/encoder_only/m3.py`, `compute_score`: all are 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RerankWeights {
    /// The weight of the product of the dense vectors.
    pub dense: f64,
    /// The weight of the sum of products of lexical weights.
    pub sparse: f64,
    /// The weight of the mean, over the query's tokens, of the best product with a token of the document.
    pub colbert: f64,
}

impl RerankWeights {
    /// The weight of a head's score; 0 for a head that does not count.
    #[must_use]
    pub fn of(&self, head: Head) -> f64 {
        match head {
            Head::Dense => self.dense,
            Head::Sparse => self.sparse,
            Head::MultiVector => self.colbert,
            _ => 0.0,
        }
    }
}

impl Default for RerankWeights {
    fn default() -> Self {
        Self {
            dense: 1.0,
            sparse: 1.0,
            colbert: 1.0,
        }
    }
}

/// The treatment of `dimensions` below the model's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DimensionsPolicy {
    /// Cut the vector and renormalize.
    #[default]
    Cut,
    /// Refuse with 400, for models that were not trained for it.
    Refuse,
}
