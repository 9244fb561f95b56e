//! The engines that are measured: a model's backend in one precision each.

use std::time::Instant;

use embedgate_config::{BackendType, Device, DeviceChoice, ModelConfig, PrecisionChoice};
use embedgate_core::Backend;

use super::{
    Failure,
    ceiling::{Ceiling, ceiling, ceiling_of_card},
};
use crate::{
    args::bench_backend::BenchBackendArgs,
    model::{
        devices, engine,
        load::{self, Plan},
        surroundings::Surroundings,
        tokenizer::TextTokenizer,
    },
};

/// A backend in one precision.
pub(super) struct Engine {
    pub(super) name: String,
    pub(super) backend: Box<dyn Backend>,
    pub(super) ceiling: Option<Ceiling>,
}

/// The model that is measured, and what its backends are opened with.
pub(super) struct Subject<'a> {
    pub(super) model: &'a ModelConfig,
    pub(super) args: &'a BenchBackendArgs,
    pub(super) plan: Plan,
    pub(super) tokenizer: TextTokenizer,
    pub(super) surroundings: Surroundings,
}

impl Subject<'_> {
    /// Tokens of a batch on a card.
    pub(super) fn batch_tokens(&self) -> usize {
        let asked = self.args.batch_tokens.or(self.model.max_batch_tokens);
        asked.unwrap_or(engine::CARD_TOKENS).max(1)
    }

    /// The model in this precision, on the first device that takes it.
    pub(super) fn placed(&self, precision: PrecisionChoice) -> Result<ModelConfig, Failure> {
        let mut model = self.model.clone();
        model.backend.precision = precision;
        match &mut model.backend.device {
            DeviceChoice::Auto(said) if !self.args.precision.is_empty() => *said = Some(precision),
            DeviceChoice::Auto(_) => {}
            DeviceChoice::At(device) => {
                let fits = devices::fitting(model.backend.kind, *device, Some(precision));
                fits.map_err(anyhow::Error::msg)?;
            }
        }
        if model.backend.device != DeviceChoice::At(Device::Cpu) {
            model.max_batch_tokens = Some(self.batch_tokens());
        }
        let (plan, surroundings) = (&self.plan, &self.surroundings);
        Ok(load::place("of the benchmark", &model, plan, surroundings)?)
    }

    /// Opens the backend of a model that has its place, and measures what the device can do.
    pub(super) fn open(&self, placed: &ModelConfig) -> Result<Engine, Failure> {
        let started = Instant::now();
        let surroundings = &self.surroundings;
        let backend = engine::open(&self.plan, placed, &self.tokenizer, surroundings)?;
        let precision = backend.info().precision;
        tracing::debug!(%precision, seconds = started.elapsed().as_secs_f64(), "loaded");
        let ceiling = match placed.backend.one_device() {
            Device::Cpu => ceiling(placed, backend.as_ref(), surroundings)?,
            Device::Cuda(_) | Device::WebGpu => {
                let encoder = &self.plan.folder.encoder;
                ceiling_of_card(placed, self.batch_tokens(), encoder, surroundings)?
            }
        };
        Ok(Engine {
            name: match backend.info().device.as_str() {
                "cpu" => precision.to_string(),
                device => format!("{precision} on {device}"),
            },
            ceiling,
            backend,
        })
    }
}

/// Returns the precisions that are asked for, f32 first, which the others are compared with; or the model's own.
pub(super) fn precisions(
    model: &ModelConfig,
    args: &BenchBackendArgs,
) -> Result<Vec<PrecisionChoice>, Failure> {
    let mut asked = args.precision.clone();
    if asked.is_empty() {
        asked.push(model.backend.precision);
    } else if model.backend.device != DeviceChoice::At(Device::Cpu) {
        // What fits depends on the device.
    } else if model.backend.kind == BackendType::Candle {
        let message =
            "--precision is for models of the backends \"cpu\" and \"onnx\": candle has one";
        return Err(anyhow::anyhow!(message).into());
    } else if model.backend.kind == BackendType::Onnx {
        if model.backend.file.is_some() {
            let message =
                "--precision chooses among the ONNX models of a folder: leave out backend.file";
            return Err(anyhow::anyhow!(message).into());
        }
        if asked.contains(&PrecisionChoice::Bf16) {
            let message = "there are no ONNX models in bf16: --precision f32,int8 compares those that there are";
            return Err(anyhow::anyhow!(message).into());
        }
    }
    asked.sort_by_key(|precision| *precision != PrecisionChoice::F32);
    let mut once = Vec::new();
    for precision in asked {
        if !once.contains(&precision) {
            once.push(precision);
        }
    }
    Ok(once)
}
