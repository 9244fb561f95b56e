//! The backend `cuda`: the model's own weights on NVIDIA cards, with kernels of embedgate's own.

use std::sync::Arc;

use embedgate_config::{BackendType, Device};
use embedgate_core::{Backend, Precision};
use embedgate_cuda::Format;

use super::{CARD_TOKENS, Engine, open_weights};
use crate::model::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    loader::Loader,
    resolved::{ResolvedBackend, ResolvedModel},
};

/// Rows of the measurements by which kernels are chosen on a card: enough to fill it.
const TIMED_ROWS: usize = 4096;
/// A step of a model's width: whole tiles of every size.
#[cfg(feature = "tools")]
pub(crate) const STEP: usize = 256;

/// The engine for NVIDIA cards.
#[derive(Debug)]
pub(super) struct Cuda;

impl Engine for Cuda {
    fn kind(&self) -> BackendType {
        BackendType::Cuda
    }

    fn inspect(
        &self,
        plan: &Plan,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<(), LoadError> {
        for device in backend.devices() {
            card(device, context)?;
        }
        open_weights(plan)
    }

    fn open(
        &self,
        loader: &Loader<'_>,
        model: &ResolvedModel,
        device: Device,
    ) -> Result<Box<dyn Backend>, LoadError> {
        let (card, number) = (card(device, loader.context)?, number(device));
        tracing::info!(
            "{device} is {} of compute capability {}.{} with {} MiB, its driver is for CUDA {}.{}",
            card.name,
            card.capability.0,
            card.capability.1,
            card.memory >> 20,
            card.driver_version / 1000,
            card.driver_version % 1000 / 10
        );
        let options = embedgate_cuda::Options {
            pooling: loader.plan.pooling,
            max_sequence_tokens: loader.plan.max_tokens,
            special_token_ids: loader.tokenizer.special_token_ids(),
            format: format(&model.backend),
            max_batch_tokens: model.max_batch_tokens.unwrap_or(CARD_TOKENS),
            timed_rows: model.max_batch_tokens.unwrap_or(TIMED_ROWS).min(TIMED_ROWS),
        };
        let loaded =
            embedgate_cuda::CudaBackend::load(&loader.plan.folder, &card, number, options)?;
        Ok(Box::new(loaded))
    }

    fn runs_on(
        &self,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<String, LoadError> {
        let described = backend.devices().map(|device| {
            let card = card(device, context)?;
            let (name, capability, driver) = (&card.name, card.capability, card.driver_version);
            let kernels = embedgate_cuda::kernels_id();
            Ok(format!("{name} {capability:?} {driver} {kernels}"))
        });
        let all = described.collect::<Result<Vec<_>, LoadError>>()?;
        Ok(all.join(" "))
    }

    fn n_cards(&self, context: &LoadContext) -> Result<usize, String> {
        match embedgate_cuda::Device::list(context.cuda()) {
            Ok(cards) if !cards.is_empty() => Ok(cards.len()),
            Err(error) if !error.is_no_device() => Err(error.to_string()),
            _ => Err("the driver finds no NVIDIA card".into()),
        }
    }

    fn usable_card(&self, context: &LoadContext) -> Option<(Device, String)> {
        let listed = embedgate_cuda::Device::list(context.cuda()).ok()?;
        let mut usable = listed
            .iter()
            .enumerate()
            .filter(|(_, card)| card.is_usable());
        let (number, card) = usable.next()?;
        Some((Device::Cuda(number), card.name.clone()))
    }

    #[cfg(feature = "tools")]
    fn product_speed(
        &self,
        plan: &Plan,
        backend: &ResolvedBackend,
        rows: usize,
        context: &LoadContext,
    ) -> Result<Option<f64>, LoadError> {
        let card = card(backend.device, context)?;
        let encoder = &plan.folder.encoder;
        let shapes = shapes(encoder.hidden_size, encoder.feed_forward.size);
        let speeds = embedgate_cuda::product_speeds(&card, rows, &shapes);
        let speeds = speeds.map_err(|error| embedgate_core::BackendError::Inference {
            what: "products cannot be timed",
            source: error.into(),
        })?;
        let format = format(backend);
        let of_format = speeds.iter().filter(|speed| speed.format == format);
        let most = of_format
            .map(|speed| speed.teraflops() * 1e12)
            .fold(0.0, f64::max);
        Ok(Some(most))
    }
}

/// Columns and terms of a model's products, as whole tiles: queries, keys and values; behind attention; up and down.
#[cfg(feature = "tools")]
pub(crate) fn shapes(width: usize, wide: usize) -> [[usize; 2]; 4] {
    let [width, wide] = [width, wide].map(|n| n.next_multiple_of(STEP));
    [
        [3 * width, width],
        [width, width],
        [wide, width],
        [width, wide],
    ]
}

/// Describes a model's cards as the driver lists them; empty where they are not NVIDIA's.
pub(super) fn described_by_driver(backend: &ResolvedBackend, context: &LoadContext) -> String {
    if !matches!(backend.device, Device::Cuda(_)) {
        return String::new();
    }
    let listed = embedgate_cuda::Device::list(context.cuda()).unwrap_or_default();
    let described = backend
        .devices()
        .filter_map(|device| listed.get(number(device)));
    let described: Vec<_> = described
        .map(|card| format!("{} {:?}", card.name, card.capability))
        .collect();
    described.join(" ")
}

/// The format of a model's numbers on a card.
fn format(backend: &ResolvedBackend) -> Format {
    match backend.precision {
        Precision::Bf16 => Format::Bf16,
        Precision::F32 | Precision::F16 | Precision::Int8 => Format::F16,
    }
}

/// A card, by its device.
///
/// # Errors
/// When there is no such card.
fn card(device: Device, context: &LoadContext) -> Result<Arc<embedgate_cuda::Device>, LoadError> {
    let opened = embedgate_cuda::Device::open(context.cuda(), number(device));
    opened.map_err(|error| LoadError::Setting(error.to_string()))
}

/// The number of a card.
fn number(device: Device) -> usize {
    match device {
        Device::Cuda(number) => number,
        // Configurations are refused where the type and the device do not fit.
        Device::Cpu | Device::WebGpu => 0,
    }
}
