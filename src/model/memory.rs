//! The memory that a model takes, known before its weights are read. So a model that does not fit is refused with the
//! numbers, and not killed in the middle of a request.

use embedgate_config::{BackendType, ByteSize, Device, ModelConfig, PrecisionChoice};
use embedgate_core::{EncoderConfig, Precision, machine::memory::limit};

use super::load::{LoadError, Plan};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    /// Weights, packed, of all replicas.
    weights: u64,
    /// Bytes that one forward pass of the longest input writes, in all replicas at once.
    working: u64,
}

impl Estimate {
    fn total(self) -> u64 {
        self.weights.saturating_add(self.working)
    }

    /// With the backend `cpu` replicas share their weights; with ONNX Runtime they may, which is not counted on. What a forward
    /// pass takes in candle is candle's to know: it is left out.
    fn new(encoder: &EncoderConfig, config: &ModelConfig, tokens: usize, formats: Formats) -> Self {
        let replicas = config.replicas.get() as u64;
        // Numbers of a config file, which nothing bounds: what is too large for 64 bits is too large for any machine.
        let of = |factors: &[usize]| {
            let factors = factors.iter().map(|factor| *factor as u64);
            factors.fold(1, u64::saturating_mul)
        };
        let (width, wide) = (encoder.hidden_size, encoder.intermediate_size);
        let table_rows = encoder.vocabulary_size + encoder.max_position_embeddings;
        let of_layers = |bytes| of(&[encoder.n_layers, 4 * width + 2 * wide, width, bytes]);
        if config.backend.kind != BackendType::Cpu {
            let of_one =
                of(&[table_rows, width, 4]).saturating_add(of_layers(bytes(formats.precision)));
            return Self {
                weights: of_one.saturating_mul(replicas),
                working: 0,
            };
        }
        let weight = bytes(formats.precision);
        let activation = bytes(formats.activations);
        // What the layers add to; queries, keys and values, and context vectors.
        let of_token = 4 * width + activation * 4 * width;
        // What is between the products of a step, and its copy as they read it. What runs beside a long batch is short and
        // left out.
        let copy = match formats.precision {
            Precision::F32 => 0,
            Precision::F16 | Precision::Bf16 => 2 * width,
            Precision::Int8 => wide,
        };
        let of_step_token = activation * wide + copy;
        let of_all = of(&[tokens, of_token]);
        let of_step = of(&[tokens.min(STEP_TOKENS), of_step_token]);
        Self {
            // The scales of bytes are a sixteenth of them and left out.
            weights: of(&[table_rows, width, weight]).saturating_add(of_layers(weight)),
            working: of_all.saturating_add(of_step).saturating_mul(replicas),
        }
    }
}

/// Tokens of a step of the cpu backend's forward pass.
#[cfg(feature = "cpu")]
const STEP_TOKENS: usize = embedgate_cpu::STEP_ROWS;
#[cfg(not(feature = "cpu"))]
const STEP_TOKENS: usize = 1024;

/// The number formats of weights, and of what is computed.
#[derive(Clone, Copy, Debug)]
struct Formats {
    precision: Precision,
    activations: Precision,
}

impl Formats {
    /// With the instructions of the library that was loaded; where none was, what takes most.
    fn of(precision: Precision) -> Self {
        Self {
            precision,
            activations: activations(precision),
        }
    }
}

#[cfg(feature = "cpu")]
fn activations(precision: Precision) -> Precision {
    embedgate_cpu::Library::loaded().map_or(Precision::F32, |library| {
        embedgate_cpu::of_attention(precision, library.instructions())
    })
}

#[cfg(not(feature = "cpu"))]
fn activations(_: Precision) -> Precision {
    Precision::F32
}

/// Returns the bytes of one number.
fn bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F16 | Precision::Bf16 => 2,
        Precision::Int8 => 1,
    }
}

/// Refuses a model that takes more than its `max_memory`, or than there is. One that ONNX Runtime runs is not judged: its
/// file is mapped, and what it takes beside that is not known before it runs. Nor is one on a card, which has memory of its own.
///
/// # Errors
/// [`LoadError::Setting`] says how much, of what, and what would take less.
pub(super) fn check(config: &ModelConfig, plan: &Plan) -> Result<(), LoadError> {
    let on_card = config.backend.one_device() != Device::Cpu;
    if config.backend.kind == BackendType::Onnx || on_card {
        return Ok(());
    }
    let precision = config.backend.precision.said().unwrap_or_default();
    let estimate = estimate(config, plan, precision);
    let Some((limit, what)) = allowed(config) else {
        return Ok(());
    };
    if estimate.total() <= limit {
        return Ok(());
    }
    let mut message = format!(
        "the model takes about {}, and {what} {}: {} of weights in {precision}",
        mib(estimate.total()),
        mib(limit),
        mib(estimate.weights)
    );
    if estimate.working > 0 {
        let working = mib(estimate.working);
        let tokens = longest_batch(config, plan);
        message += &format!(", {working} to run a batch of {tokens} tokens");
    }
    let smaller = [PrecisionChoice::Bf16, PrecisionChoice::Int8];
    let fitting = smaller
        .into_iter()
        .filter_map(PrecisionChoice::said)
        .find_map(|precision| {
            let estimate = self::estimate(config, plan, precision);
            let fits = config.backend.kind == BackendType::Cpu && estimate.total() <= limit;
            fits.then(|| {
                format!(
                    "; backend.precision = \"{precision}\" takes {}",
                    mib(estimate.total())
                )
            })
        });
    message += &match fitting {
        Some(precision) => precision,
        None if estimate.weights < limit => {
            "; a smaller max_length or max_batch_tokens takes less to run".into()
        }
        None if config.replicas.get() > 1 => "; fewer replicas take less".into(),
        None => String::new(),
    };
    Err(LoadError::Setting(message))
}

/// Returns true when a model fits, as far as can be known. This includes a model that ONNX Runtime runs: each replica
/// has weights of its own.
pub(super) fn fits(config: &ModelConfig, plan: &Plan) -> bool {
    let precision = config.backend.precision.said().unwrap_or_default();
    let total = estimate(config, plan, precision).total();
    allowed(config).is_none_or(|(limit, _)| total <= limit)
}

fn estimate(config: &ModelConfig, plan: &Plan, precision: Precision) -> Estimate {
    let tokens = longest_batch(config, plan);
    Estimate::new(&plan.folder.encoder, config, tokens, Formats::of(precision))
}

/// Bytes that a model takes in the machine's memory; 0 for what is on a card.
pub(crate) fn of_machine(config: &ModelConfig, plan: &Plan) -> u64 {
    if config.backend.one_device() != Device::Cpu {
        return 0;
    }
    let precision = config.backend.precision.said().unwrap_or_default();
    estimate(config, plan, precision).total()
}

/// In tokens.
fn longest_batch(config: &ModelConfig, plan: &Plan) -> usize {
    plan.max_tokens.max(config.max_batch_tokens.unwrap_or(0))
}

/// The least of the model's own limit and of what there is, and which it is; none where neither is known.
fn allowed(config: &ModelConfig) -> Option<(u64, &'static str)> {
    let there_is = "this machine or its control group has";
    match (config.max_memory, limit()) {
        (Some(own), Some(all)) if own.0 > all => Some((all, there_is)),
        (Some(own), _) => Some((own.0, "max_memory is")),
        (None, Some(all)) => Some((all, there_is)),
        (None, None) => None,
    }
}

pub(crate) fn mib(bytes: u64) -> ByteSize {
    ByteSize::mib(bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use embedgate_config::ReplicaCount;

    use super::*;

    fn bge_m3() -> EncoderConfig {
        let text = r#"{"model_type": "xlm-roberta", "vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24,
            "num_attention_heads": 16, "intermediate_size": 4096, "hidden_act": "gelu", "max_position_embeddings": 8194,
            "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}"#;
        EncoderConfig::from_json(text).unwrap()
    }

    #[test]
    fn the_estimate_is_what_bge_m3_was_seen_to_take() {
        // Resident memory in MiB of an idle server with the model, and what it grew by at one input of 8192 tokens, measured
        // on Cascade Lake. What the tokenizer, the scales of bytes and the server itself take is not in the estimate.
        const REST: u64 = 90 << 20;
        for (precision, activations, loaded, grown) in [
            (Precision::F32, Precision::F32, 2363, 186),
            (Precision::Int8, Precision::F32, 658, 193),
        ] {
            let formats = Formats {
                precision,
                activations,
            };
            let config = ModelConfig::default();
            let estimate = Estimate::new(&bge_m3(), &config, 8192, formats);
            let near = |bytes: u64, seen: u64| {
                let mib = bytes >> 20;
                assert!(mib.abs_diff(seen) < seen / 8, "{precision}: {mib} {seen}");
            };
            near(estimate.weights + REST, loaded);
            near(estimate.working, grown);
        }
    }

    #[test]
    fn only_the_cpu_backend_s_replicas_are_sure_to_share_weights() {
        let mut config = ModelConfig {
            replicas: ReplicaCount::Fixed(3),
            ..ModelConfig::default()
        };
        let formats = Formats::of(Precision::F32);
        let of = |config: &ModelConfig| Estimate::new(&bge_m3(), config, 100, formats);
        let one = of(&ModelConfig::default());
        assert_eq!(of(&config).weights, one.weights);
        assert_eq!(of(&config).working, 3 * one.working);
        config.backend.kind = BackendType::Onnx;
        assert_eq!(of(&config).weights, 3 * one.weights);
    }

    #[test]
    fn nothing_overflows() {
        let config = ModelConfig::default();
        let endless = Estimate::new(&bge_m3(), &config, usize::MAX, Formats::of(Precision::F32));
        assert_eq!(endless.total(), u64::MAX);
    }
}
