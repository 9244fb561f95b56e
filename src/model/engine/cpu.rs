//! The backend `cpu`: the model's own weights on oneDNN, or on candle where its library is missing.

use embedgate_config::{BackendType, Device};
use embedgate_core::{Backend, EncoderConfig, Precision};

use super::{Engine, open_static, open_weights, without_onednn};
use crate::model::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    loader::Loader,
    memory::estimate::{Estimate, Needs, bytes, product},
    placement::Placement,
    resolved::{ResolvedBackend, ResolvedModel},
};

/// The engine for processors.
#[derive(Debug)]
pub(super) struct Cpu;

impl Engine for Cpu {
    fn kind(&self) -> BackendType {
        BackendType::Cpu
    }

    fn resolve(
        &self,
        name: &str,
        place: &Placement,
        context: &LoadContext,
    ) -> Result<(BackendType, Precision), LoadError> {
        let library = match embedgate_cpu::runtime::load(&context.onednn()) {
            Ok(library) => library,
            Err(missing) => {
                let Some(instead) = without_onednn(place) else {
                    return Err(missing.into());
                };
                let pinned = match place.threads.are_pinned {
                    Some(true) => " (its threads stay on no cores)",
                    _ => "",
                };
                tracing::warn!(
                    model.name = name,
                    "model {name} runs with candle, in f32 and slower{pinned}: {missing}"
                );
                return Ok(instead);
            }
        };
        let precision = place.precision.said().unwrap_or_else(|| {
            let chosen = embedgate_cpu::fastest(library.instructions());
            tracing::info!(
                model.name = name,
                precision = %chosen,
                "model {name} runs in {chosen}: this processor has {:?}",
                library.instructions()
            );
            chosen
        });
        if !embedgate_cpu::runs(library, precision) {
            return Err(LoadError::Setting(format!(
                "oneDNN cannot run a model in {precision} on this processor, which has {:?}: set \
                 backend.precision = \"f32\"",
                library.instructions()
            )));
        }
        if !embedgate_cpu::is_fast(precision, library.instructions()) {
            tracing::warn!(
                model.name = name,
                "model {name} runs in {precision}, which this processor has no instructions for (it has {:?}): \
                 \"f32\" may be faster; `embedgate bench-backend --precision f32,{precision}` tells",
                library.instructions()
            );
        }
        Ok((self.kind(), precision))
    }

    fn inspect(
        &self,
        plan: &Plan,
        _backend: &ResolvedBackend,
        _context: &LoadContext,
    ) -> Result<(), LoadError> {
        open_weights(plan)
    }

    fn open(
        &self,
        loader: &Loader<'_>,
        model: &ResolvedModel,
        _device: Device,
    ) -> Result<Box<dyn Backend>, LoadError> {
        if let Some(opened) = open_static(loader.plan) {
            return opened;
        }
        let library = embedgate_cpu::runtime::load(&loader.context.onednn())?;
        let options = embedgate_cpu::Options {
            pooling: loader.plan.pooling,
            max_sequence_tokens: loader.plan.max_tokens,
            special_token_ids: loader.tokenizer.special_token_ids(),
            threads: model.threads,
            cores: model.cores.clone(),
            precision: model.backend.precision,
        };
        let loaded = embedgate_cpu::CpuBackend::load(&loader.plan.folder, library, options)?;
        Ok(Box::new(loaded))
    }

    fn memory(&self, needs: &Needs<'_>) -> Estimate {
        estimate(needs, self.precision_of_attention(needs.precision))
    }

    /// With the instructions of the library that was loaded; where none was, the precision that takes most.
    fn precision_of_attention(&self, precision: Precision) -> Precision {
        embedgate_cpu::Library::loaded().map_or(Precision::F32, |library| {
            embedgate_cpu::of_attention(precision, library.instructions())
        })
    }
}

/// The memory of replicas that share their weights, with what their activations take in a precision of their own.
fn estimate(needs: &Needs<'_>, activations: Precision) -> Estimate {
    let EncoderConfig {
        hidden_size: width,
        attention,
        feed_forward,
        ..
    } = needs.encoder;
    let (width, wide) = (*width, feed_forward.up_width());
    if needs.encoder.layers.is_empty() {
        // A table alone, which keeps f32.
        return Estimate {
            weights: needs.weights(4, 4),
            working: 0,
        };
    }
    let weight = bytes(needs.precision);
    let activation = bytes(activations);
    // What the layers add to; queries, keys and values, and context vectors.
    let of_token = 4 * width + activation * (attention.qkv_width() + attention.query_width());
    // What is between the products of a step, and its copy as they read it. What runs beside a long batch is short and
    // left out.
    let copy = match needs.precision {
        Precision::F32 => 0,
        Precision::F16 | Precision::Bf16 => 2 * width,
        Precision::Int8 => wide,
    };
    let of_step_token = activation * wide + copy;
    let of_all = product(&[needs.tokens, of_token]);
    let step = needs.tokens.min(embedgate_cpu::STEP_ROWS);
    let of_step = product(&[step, of_step_token]);
    Estimate {
        // The scales of bytes are a sixteenth of them and left out.
        weights: needs.weights(weight, weight),
        working: of_all
            .saturating_add(of_step)
            .saturating_mul(needs.replicas as u64),
    }
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

    fn needs(encoder: &EncoderConfig, replicas: usize, tokens: usize) -> Needs<'_> {
        Needs {
            encoder,
            tokens,
            replicas,
            precision: Precision::F32,
        }
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
            let encoder = bge_m3();
            let needs = Needs {
                precision,
                ..needs(&encoder, 1, 8192)
            };
            let estimate = estimate(&needs, activations);
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
        let encoder = bge_m3();
        let one = Cpu.memory(&needs(&encoder, 1, 100));
        let three = Cpu.memory(&needs(&encoder, 3, 100));
        assert_eq!(three.weights, one.weights);
        assert_eq!(three.working, 3 * one.working);
        let separate = Estimate::of_separate_replicas(&needs(&encoder, 3, 100));
        assert_eq!(separate.weights, 3 * one.weights);
    }

    #[test]
    fn nothing_overflows() {
        let endless = Cpu.memory(&needs(&bge_m3(), 1, usize::MAX));
        assert_eq!(endless.total(), u64::MAX);
    }
}
