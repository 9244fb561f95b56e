//! `[models.NAME]`.

use std::{collections::BTreeMap, path::PathBuf};

use embedgate_core::{Pooling, Precision};
use embedgate_request::{Lane, LongDocuments, TokenIds};
use serde::{Deserialize, Serialize};

use super::{
    ByteSize, Device, DeviceChoice, Period, Problem, ReplicaCount, ServerConfig, Source,
    device::{usual_precision, usual_type},
    units::is_sha256,
};

/// More inputs than memory could hold.
const MAX_QUEUE: usize = 10_000_000;
/// More copies of a model than a machine has cores.
const MAX_REPLICAS: usize = 1024;

/// One model. What is not said is read from the model's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's folder, with `config.json`, `tokenizer.json` and the weights.
    pub path: PathBuf,
    /// The hub address that the folder can be fetched from, such as `modelscope:BAAI/bge-m3` or
    /// `hf:BAAI/bge-m3@REVISION`. `serve --pull` fetches it, or `pull` with the model's name. None means that the
    /// folder exists already.
    pub source: Option<Source>,
    /// The time when the model is loaded: at the `start`, or `on_demand`, by the first request that names it.
    pub load: LoadTime,
    /// A model that is loaded on demand leaves the memory after so long without a request. None means never, unless others need
    /// its memory.
    pub idle: Option<Period>,
    /// A reload that changes the model stops it before it loads the new one, for models that do not fit in memory twice:
    /// meanwhile requests get 503 with Retry-After.
    pub stop_first: bool,
    /// Files of the folder, and the sha256 that each must have: the model is refused where one has another. A file that is not
    /// named is not checked.
    pub sha256: BTreeMap<String, String>,
    /// Other names that clients may use.
    pub aliases: Vec<String>,
    /// The backend that runs the model, and its device.
    pub backend: BackendConfig,
    /// The method that makes one vector of token vectors: `cls`, `mean`, `last` or `max`. None means the method that
    /// the folder states, else `mean`.
    pub pooling: Option<Pooling>,
    /// True when vectors are normalized to length 1. None means the value that the folder's `modules.json` states, and
    /// true where there is no such file.
    pub normalize: Option<bool>,
    /// Longest input in tokens, special tokens included. None means as the folder says.
    pub max_length: Option<usize>,
    /// True when longer inputs are cut (the answer's header `x-truncated` states it); false when they are refused with
    /// 400.
    pub truncate: bool,
    /// Texts that can be put in front of inputs, by name, beside those of the folder.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is put in front of every text; `""` for none. None means as the folder says.
    pub default_prompt: Option<String>,
    /// The meaning of arrays of token ids: `cl100k` (OpenAI's, as LangChain sends), `o200k` (of OpenAI's newer models),
    /// `native` (the model's own) or `reject`. None means the meaning that the route's dialect gives them.
    pub token_ids: Option<TokenIds>,
    /// The effect of `dimensions` below the model's own: `cut` (and renormalize) or `refuse`.
    pub dimensions: DimensionsPolicy,
    /// The weight of each kind of a model's results in the weighted mean that reranks by them.
    pub rerank: RerankWeights,
    /// The treatment of documents to rank that are longer than the model takes: `truncate`, or `windows`, which splits
    /// a document into overlapping windows and counts the best one.
    pub long_documents: LongDocuments,
    /// Inputs that may wait or run at once; a request that does not fit as a whole gets 429.
    pub queue_capacity: usize,
    /// Most tokens in one forward pass, padding included; a longer input goes alone. None means what a measurement at
    /// the load finds best.
    pub max_batch_tokens: Option<usize>,
    /// While queries are about, bulk goes in batches of at most this time, as far as its inputs allow: a query waits for
    /// one such batch at most.
    pub max_batch_time: Period,
    /// Bulk gets a batch at least this often, whatever the queries.
    pub bulk_max_wait: Period,
    /// A query that has more work than this ahead of it in the queue is refused at once, with the time to come back.
    pub max_queue_time: Period,
    /// The limit of the same kind for the bulk lane: bulk that has more work than this ahead of it is refused at once.
    pub bulk_max_queue_time: Period,
    /// The lane of requests that name none, and whose key names none. None means by size: few short inputs are a query.
    pub lane: Option<Lane>,
    /// Copies of the backend that run side by side, each with `backend.threads`. `auto` measures, once, how many are clearly
    /// faster than fewer where there are many callers; a caller that is alone has the threads of one.
    pub replicas: ReplicaCount,
    /// Threads that turn text into tokens.
    pub tokenizer_threads: usize,
    /// The model is refused where its weights and what it takes to run its longest batch are more than this. None means what
    /// the machine has.
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

/// The time when a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RerankWeights {
    /// The weight of the product of the dense vectors.
    pub dense: f64,
    /// The weight of the sum of products of lexical weights.
    pub sparse: f64,
    /// The weight of the mean, over the query's tokens, of the best product with a token of the document.
    pub colbert: f64,
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

/// The backend that runs a model, and its device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct BackendConfig {
    /// `cpu` runs the model's own weights on the processor, `cuda` on an NVIDIA card, `candle` in Rust alone, `onnx` its ONNX
    /// variant (see `embedgate convert`).
    pub kind: BackendType,
    /// The device that runs the model: `cpu`; a card, such as `cuda:0`, with `cuda` or `onnx`; `webgpu`, any graphics
    /// card, with `onnx`; or `auto`, the first of those that can run it. The device chooses the type, where none is
    /// stated.
    pub device: DeviceChoice,
    /// Cards that replicas run on, such as `["cuda:0", "cuda:1"]`, each with as many as `replicas` says, behind one queue.
    pub devices: Vec<Device>,
    /// Number format of matrix products: `f32`; with `cpu` also `bf16`, `int8`, or `auto`, which is the fastest that
    /// keeps cosines of 0.9999; with `onnx` also `int8` on the processor, and `f16` on cards, models of their own (`embedgate
    /// convert`); with `cuda` `f16`, which `auto` is there, or `bf16`.
    pub precision: PrecisionChoice,
    /// Threads of a matrix product. None means one a physical core, shared among the replicas.
    pub threads: Option<usize>,
    /// True when each thread stays on a core of its own, with `cpu`. None means true only where the threads of all
    /// replicas are as many as the physical cores that this process may use, without a quota below them.
    pub pin_threads: Option<bool>,
    /// The ONNX file. None means `onnx/model.onnx` or `model.onnx` in the model's folder, `model_int8.onnx` for int8; on cards
    /// `model_gpu.onnx` and `model_gpu_f16.onnx` come first.
    pub file: Option<PathBuf>,
}

/// The written form of [`BackendConfig`]: the values of omitted settings depend on the type.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<BackendType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Devices>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<PrecisionChoice>,
    threads: Option<usize>,
    pin_threads: Option<bool>,
    file: Option<PathBuf>,
}

impl From<Written> for BackendConfig {
    fn from(written: Written) -> Self {
        let devices = written.devices.unwrap_or_default().0;
        let usual = || match (devices.first(), written.kind) {
            (Some(first), _) => *first,
            (None, Some(BackendType::Cuda)) => Device::Cuda(0),
            (None, _) => Device::Cpu,
        };
        let device = written.device.unwrap_or_else(|| DeviceChoice::At(usual()));
        let kind = written.kind.unwrap_or(match device {
            DeviceChoice::Auto(_) => BackendType::Cpu,
            DeviceChoice::At(device) => usual_type(device),
        });
        let device = match (device, written.kind) {
            (DeviceChoice::Auto(_), Some(BackendType::Cpu | BackendType::Candle)) => {
                DeviceChoice::At(Device::Cpu)
            }
            (DeviceChoice::Auto(_), _) => DeviceChoice::Auto(written.precision),
            (at @ DeviceChoice::At(_), _) => at,
        };
        Self {
            kind,
            device,
            devices,
            precision: written.precision.unwrap_or(usual_precision(kind)),
            threads: written.threads,
            pin_threads: written.pin_threads,
            file: written.file,
        }
    }
}

/// As it can be read again: what `auto` leaves open is left out.
impl From<BackendConfig> for Written {
    fn from(config: BackendConfig) -> Self {
        let (kind, precision) = match (config.device, config.kind) {
            (DeviceChoice::Auto(said), BackendType::Cpu) => (None, said),
            (DeviceChoice::Auto(said), kind) => (Some(kind), said),
            (DeviceChoice::At(_), kind) => (Some(kind), Some(config.precision)),
        };
        Self {
            kind,
            device: Some(config.device),
            devices: (!config.devices.is_empty()).then_some(Devices(config.devices)),
            precision,
            threads: config.threads,
            pin_threads: config.pin_threads,
            file: config.file,
        }
    }
}

/// At least one device.
#[derive(Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Device>")]
struct Devices(Vec<Device>);

impl TryFrom<Vec<Device>> for Devices {
    type Error = &'static str;

    fn try_from(devices: Vec<Device>) -> Result<Self, &'static str> {
        match devices.is_empty() {
            true => Err(r#"names no device: ["cuda:0", "cuda:1"] are two cards"#),
            false => Ok(Self(devices)),
        }
    }
}

/// A number format, or none in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// As the processor has instructions for.
    Auto,
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Bytes.
    Int8,
}

impl PrecisionChoice {
    /// Returns the precision that was stated, or none for `auto`.
    #[must_use]
    pub fn said(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::F16 => Some(Precision::F16),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => Some(Precision::Int8),
        }
    }

    /// Returns true when only oneDNN can run a model's own weights in this precision.
    #[must_use]
    pub fn needs_onednn(self) -> bool {
        matches!(self, Self::Bf16 | Self::Int8)
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}

/// The backends of this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendType {
    /// The model's own weights, on oneDNN; on candle where there is no oneDNN.
    #[default]
    Cpu,
    /// The model's own weights, with candle.
    Candle,
    /// An ONNX model, with ONNX Runtime.
    Onnx,
    /// The model's own weights, on an NVIDIA card, with kernels of embedgate's own.
    Cuda,
}

impl std::fmt::Display for BackendType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Candle => "candle",
            Self::Onnx => "onnx",
            Self::Cuda => "cuda",
        })
    }
}

/// The treatment of `dimensions` below the model's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DimensionsPolicy {
    /// Cut the vector and renormalize.
    #[default]
    Cut,
    /// Refuse with 400, for models that were not trained for it.
    Refuse,
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

    pub(super) fn check(&self, name: &str, server: &ServerConfig, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::new(format!("models.{name}.{key}"), message))
        };
        if self.path.as_os_str().is_empty() {
            problem("path", "is missing: the folder of the model".into());
        } else if self.source.is_none()
            && let Err(error) = self.path.read_dir()
        {
            problem(
                "path",
                format!(
                    "{} cannot be read as the folder of a model: {error}; `embedgate pull OWNER/NAME --to {}` fetches one",
                    self.path.display(),
                    self.path.display()
                ),
            );
        }
        for text in self.aliases.iter().map(String::as_str).chain([name]) {
            if text.is_empty() || text.chars().any(char::is_control) {
                problem(
                    "aliases",
                    format!(
                        "{text:?} is no name: names are not empty and hold no control characters"
                    ),
                );
            }
        }
        if self.idle.is_some() && self.load == LoadTime::Start {
            problem(
                "idle",
                "is for load = \"on_demand\": what is loaded at the start stays".into(),
            );
        }
        for (file, hash) in &self.sha256 {
            if !is_sha256(hash) {
                problem(
                    &format!("sha256.{file:?}"),
                    "must be 64 hex digits: `sha256sum` prints them".into(),
                );
            }
        }
        for (key, value, least) in [
            ("max_length", self.max_length.unwrap_or(usize::MAX), 2),
            ("max_batch_tokens", self.max_batch_tokens.unwrap_or(1), 1),
            ("replicas", self.replicas.get(), 1),
            ("tokenizer_threads", self.tokenizer_threads, 1),
            ("backend.threads", self.backend.threads.unwrap_or(1), 1),
        ] {
            if value < least {
                problem(key, format!("must be at least {least}, got {value}"));
            }
        }
        let replicas = self.replicas.get();
        if replicas > MAX_REPLICAS {
            problem(
                "replicas",
                format!("must be at most {MAX_REPLICAS}, got {replicas}"),
            );
        }
        if self.queue_capacity > MAX_QUEUE {
            problem(
                "queue_capacity",
                format!("must be at most {MAX_QUEUE}, got {}", self.queue_capacity),
            );
        }
        if self.queue_capacity < server.max_inputs {
            problem(
                "queue_capacity",
                format!(
                    "{} is below server.max_inputs {}: the largest request would never fit",
                    self.queue_capacity, server.max_inputs
                ),
            );
        }
        let periods = [
            ("max_batch_time", self.max_batch_time),
            ("bulk_max_wait", self.bulk_max_wait),
            ("max_queue_time", self.max_queue_time),
            ("bulk_max_queue_time", self.bulk_max_queue_time),
            ("idle", self.idle.unwrap_or(Period::seconds(1))),
        ];
        for (key, period) in periods {
            period.check(&format!("models.{name}.{key}"), problems);
        }
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::new(format!("models.{name}.{key}"), message))
        };
        let RerankWeights {
            dense,
            sparse,
            colbert,
        } = self.rerank;
        let weights = [dense, sparse, colbert];
        if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || weights == [0.0; 3] {
            problem(
                "rerank",
                format!("the weights must be at least 0 and not all 0, got {weights:?}"),
            );
        }
        let is_open = matches!(self.backend.device, DeviceChoice::Auto(_));
        // No type was said, so that it may become onnx.
        let may_be_onnx = is_open && self.backend.kind == BackendType::Cpu;
        if self.backend.file.is_some() && self.backend.kind != BackendType::Onnx && !may_be_onnx {
            problem(
                "backend.file",
                "is for type = \"onnx\"; the others read the weights of the model's folder".into(),
            );
        }
        if self.backend.pin_threads.is_some() && self.backend.kind != BackendType::Cpu {
            problem(
                "backend.pin_threads",
                "is for type = \"cpu\"; the others leave their threads to the system".into(),
            );
        }
        self.backend.check_devices(&mut problem);
        let BackendConfig {
            kind, precision, ..
        } = self.backend;
        let on_card = self.backend.all_devices() != [Device::Cpu];
        if self.backend.device == DeviceChoice::At(Device::WebGpu) && self.replicas.get() > 1 {
            problem(
                "replicas",
                r#"must be 1 with device = "webgpu": ONNX Runtime's plugin runs one batch at a time"#.into(),
            );
        }
        if self.replicas == ReplicaCount::Auto && (kind == BackendType::Cuda || on_card) {
            problem(
                "replicas",
                r#"must be a number on a card: "auto" counts the processor's threads"#.into(),
            );
        }
        if self.backend.threads.is_some() && kind == BackendType::Cuda {
            problem(
                "backend.threads",
                r#"is not for type = "cuda": a card has threads of its own"#.into(),
            );
        }
        let first = self.backend.all_devices().first().copied();
        let has_it = kind
            .precisions(first.unwrap_or_default())
            .contains(&precision);
        // What does not fit a device is a reason not to take it, where it is open.
        if !is_open && !has_it {
            let fitting = match (kind, on_card) {
                (BackendType::Candle, _) if precision == PrecisionChoice::Int8 => {
                    r#""f32" or "auto" with type = "candle", on cards also "f16" or "bf16""#
                }
                (BackendType::Candle, _) => {
                    r#""f32" or "auto" with type = "candle" on the processor"#
                }
                (BackendType::Onnx, false) => {
                    r#""f32", "int8" or "auto" with type = "onnx" on the processor"#
                }
                (BackendType::Onnx, true) => {
                    r#""f32", "f16" or "auto" with type = "onnx" on a card"#
                }
                (BackendType::Cpu, _) => r#""f32", "bf16", "int8" or "auto" with type = "cpu""#,
                (BackendType::Cuda, _) => r#""f16", "bf16" or "auto" with type = "cuda""#,
            };
            problem("backend.precision", format!("must be {fitting}"));
        }
        match kind {
            BackendType::Onnx if self.max_memory.is_some() => problem(
                "max_memory",
                "is not for type = \"onnx\": what ONNX Runtime takes is not known before it runs"
                    .into(),
            ),
            BackendType::Cuda if self.max_memory.is_some() => problem(
                "max_memory",
                "is not for type = \"cuda\": the model is in the card's memory".into(),
            ),
            _ => {}
        }
    }
}
