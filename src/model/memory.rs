//! What a model takes in memory, known before its weights are read: so that one that does not fit is refused with the
//! numbers, and not killed in the middle of a request.

use embedgate_core::{EncoderConfig, Precision};

use super::load::{LoadError, Plan};
use crate::config::{BackendType, ByteSize, ModelConfig, PrecisionChoice};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    /// Weights, packed, of all replicas.
    weights: u64,
    /// What one forward pass of the longest input writes, in all replicas at once.
    working: u64,
}

impl Estimate {
    fn total(self) -> u64 {
        self.weights + self.working
    }

    /// With the backend `cpu` replicas share their weights. What a forward pass takes in the other libraries is theirs
    /// to know: it is left out.
    fn new(
        encoder: &EncoderConfig,
        config: &ModelConfig,
        tokens: usize,
        precision: Precision,
    ) -> Self {
        let replicas = config.replicas as u64;
        let of = |n: usize, bytes: usize| n as u64 * bytes as u64;
        let (width, wide) = (encoder.hidden_size, encoder.intermediate_size);
        let table_rows = encoder.vocabulary_size + encoder.max_position_embeddings;
        let layers = encoder.n_layers * (4 * width * width + 2 * width * wide);
        if config.backend.kind != BackendType::Cpu {
            return Self {
                weights: replicas * of(table_rows * width + layers, 4),
                working: 0,
            };
        }
        // A number in a table, in a layer, and between two products; and its copy as a byte.
        let (table, layer, between, copy) = match precision {
            Precision::F32 => (4, 4, 4, 0),
            Precision::Bf16 => (2, 2, 2, 0),
            Precision::Int8 => (2, 1, 2, 1),
        };
        let of_token = 4 * width + between * 3 * width + (between + copy) * (2 * width + wide);
        Self {
            weights: of(table_rows * width, table) + of(layers, layer),
            working: replicas * of(tokens, of_token),
        }
    }
}

/// Refuses a model that takes more than its `max_memory`, or than there is.
///
/// # Errors
/// [`LoadError::Setting`] says how much, of what, and what would take less.
pub(super) fn check(config: &ModelConfig, plan: &Plan) -> Result<(), LoadError> {
    // Which one is taken is found out when the model is loaded.
    let Some(precision) = config.backend.precision.said() else {
        return Ok(());
    };
    let tokens = plan.max_tokens.max(config.max_batch_tokens.unwrap_or(0));
    let encoder = &plan.folder.encoder;
    let estimate = Estimate::new(encoder, config, tokens, precision);
    let (limit, what) = match (config.max_memory, limit()) {
        (Some(own), Some(all)) if own.0 > all => (all, "this machine has"),
        (Some(own), _) => (own.0, "max_memory is"),
        (None, Some(all)) => (all, "this machine has"),
        (None, None) => return Ok(()),
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
        message += &format!(", {working} to run an input of {tokens} tokens");
    }
    let smaller = [PrecisionChoice::Bf16, PrecisionChoice::Int8];
    let fitting = smaller
        .into_iter()
        .filter_map(PrecisionChoice::said)
        .find_map(|precision| {
            let estimate = Estimate::new(encoder, config, tokens, precision);
            let fits = config.backend.kind == BackendType::Cpu && estimate.total() <= limit;
            fits.then(|| {
                format!(
                    "; backend.precision = \"{precision}\" takes {}",
                    mib(estimate.total())
                )
            })
        });
    message += &fitting.unwrap_or_else(|| "; a smaller max_length takes less to run".into());
    Err(LoadError::Setting(message))
}

fn mib(bytes: u64) -> ByteSize {
    ByteSize::mib(bytes.div_ceil(1 << 20))
}

/// What this process may have: the machine's memory, or the least limit of the control groups that it is in.
fn limit() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    });
    let files = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let groups = files.into_iter().filter_map(read);
    // "max" is no number.
    let groups = groups.filter_map(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(groups).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bge_m3() -> EncoderConfig {
        let text = r#"{"model_type": "xlm-roberta", "vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24,
            "num_attention_heads": 16, "intermediate_size": 4096, "hidden_act": "gelu", "max_position_embeddings": 8194,
            "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}"#;
        EncoderConfig::from_json(text).unwrap()
    }

    #[test]
    fn the_estimate_is_what_bge_m3_was_seen_to_take() {
        // Resident memory of a loaded model, and what it grew by at one input of 8192 tokens, in MiB (docs/benchmarks.md).
        for (precision, loaded, grown) in [
            (Precision::F32, 2399, 356),
            (Precision::Bf16, 1160, 190),
            (Precision::Int8, 871, 220),
        ] {
            let estimate = Estimate::new(&bge_m3(), &ModelConfig::default(), 8192, precision);
            let near = |bytes: u64, seen: u64| {
                let mib = bytes >> 20;
                assert!(mib.abs_diff(seen) < seen / 8, "{precision}: {mib} {seen}");
            };
            near(estimate.weights, loaded);
            near(estimate.working, grown);
        }
    }

    #[test]
    fn replicas_share_the_weights_of_the_cpu_backend_alone() {
        let mut config = ModelConfig {
            replicas: 3,
            ..ModelConfig::default()
        };
        let of = |config: &ModelConfig| Estimate::new(&bge_m3(), config, 100, Precision::F32);
        let one = of(&ModelConfig::default());
        assert_eq!(of(&config).weights, one.weights);
        assert_eq!(of(&config).working, 3 * one.working);
        config.backend.kind = BackendType::Onnx;
        assert_eq!(of(&config).weights, 3 * one.weights);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(!cfg!(target_os = "linux") || limit() > Some(1 << 28));
    }
}
