//! The engines that are measured: a model's backend in one precision each.

use std::time::Instant;

use embedgate_config::{Device, DeviceChoice, ModelConfig, PrecisionChoice};
use embedgate_core::Backend;

use super::{
    Failure,
    ceiling::{Ceiling, ceiling, ceiling_of_card},
};
use crate::{
    args::bench_backend::BenchBackendArgs,
    model::{devices, engine, load, loader::Loader},
};

/// A backend in one precision.
pub(super) struct MeasuredBackend {
    pub(super) name: String,
    pub(super) backend: Box<dyn Backend>,
    pub(super) threads: usize,
    pub(super) ceiling: Option<Ceiling>,
}

/// The model that is measured, and what its backends are opened with.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) loader: Loader<'a>,
    pub(super) args: &'a BenchBackendArgs,
}

impl Subject<'_> {
    /// Tokens of a batch on a card.
    pub(super) fn batch_tokens(&self) -> usize {
        let stated = self.loader.config.max_batch_tokens;
        let asked = self.args.batch_tokens.or(stated);
        asked.unwrap_or(engine::CARD_TOKENS).max(1)
    }

    /// Opens the model in this precision, on the first device that takes it, and measures what the device can do.
    pub(super) fn open(&self, precision: PrecisionChoice) -> Result<MeasuredBackend, Failure> {
        let config = &self.in_precision(precision)?;
        let loader = Loader {
            config,
            ..self.loader
        };
        let model = load::place(&loader)?;
        let started = Instant::now();
        let device = model.backend.device;
        let backend = model.backend.engine.open(&loader, &model, device)?;
        let precision = backend.info().precision;
        tracing::debug!(%precision, seconds = started.elapsed().as_secs_f64(), "loaded");
        let ceiling = match model.backend.is_on_processor() {
            true => ceiling(&loader, &model, precision)?,
            false => ceiling_of_card(&loader, &model, self.batch_tokens())?,
        };
        Ok(MeasuredBackend {
            name: match backend.info().device.as_str() {
                "cpu" => precision.to_string(),
                device => format!("{precision} on {device}"),
            },
            threads: model.threads,
            ceiling,
            backend,
        })
    }

    /// The model's configuration with another precision.
    fn in_precision(&self, precision: PrecisionChoice) -> Result<ModelConfig, Failure> {
        let mut config = self.loader.config.clone();
        config.backend.precision = precision;
        match &mut config.backend.device {
            DeviceChoice::Auto(said) if !self.args.precision.is_empty() => *said = Some(precision),
            DeviceChoice::Auto(_) => {}
            DeviceChoice::At(device) => {
                let fits = devices::fitting(config.backend.kind, *device, Some(precision));
                fits.map_err(anyhow::Error::msg)?;
            }
        }
        if config.backend.device != DeviceChoice::At(Device::Cpu) {
            config.max_batch_tokens = Some(self.batch_tokens());
        }
        Ok(config)
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
    } else if model.backend.device == DeviceChoice::At(Device::Cpu) {
        // What fits a card depends on the card.
        // A type that is not built is refused later, where no other takes its place.
        if let Ok(engine) = engine::of(model.backend.kind) {
            let compared = engine.check_compared(&asked, model);
            compared.map_err(anyhow::Error::msg)?;
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
