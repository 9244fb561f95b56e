//! The backend `candle`: the model's own weights in Rust alone, on the processor or on NVIDIA cards.

use embedgate_config::{BackendType, Device};
#[cfg(feature = "tools")]
use embedgate_config::{ModelConfig, PrecisionChoice};
use embedgate_core::Backend;

use super::{Engine, open_static, open_weights};
use crate::model::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    loader::Loader,
    resolved::{ResolvedBackend, ResolvedModel},
};

/// The engine in Rust alone.
#[derive(Debug)]
pub(super) struct Candle;

impl Engine for Candle {
    fn kind(&self) -> BackendType {
        BackendType::Candle
    }

    fn inspect(
        &self,
        plan: &Plan,
        backend: &ResolvedBackend,
        _context: &LoadContext,
    ) -> Result<(), LoadError> {
        for number in backend.devices().filter_map(card_number) {
            embedgate_candle::check_card(number)?;
        }
        open_weights(plan)
    }

    fn open(
        &self,
        loader: &Loader<'_>,
        model: &ResolvedModel,
        device: Device,
    ) -> Result<Box<dyn Backend>, LoadError> {
        if let Some(opened) = open_static(loader.plan) {
            return opened;
        }
        let (pooling, max_tokens) = (loader.plan.pooling, loader.plan.max_tokens);
        let options = embedgate_candle::Options {
            special_token_ids: loader.tokenizer.special_token_ids(),
            precision: model.backend.precision,
            card: card_number(device),
            ..embedgate_candle::Options::on_processor(pooling, max_tokens, model.threads)
        };
        let loaded = embedgate_candle::CandleBackend::load(&loader.plan.folder, options)?;
        Ok(Box::new(loaded))
    }

    #[cfg(feature = "tools")]
    fn check_compared(
        &self,
        _asked: &[PrecisionChoice],
        _model: &ModelConfig,
    ) -> Result<(), &'static str> {
        Err("--precision is for models of the backends \"cpu\" and \"onnx\": candle has one")
    }
}

/// The number of a card; none for the processor.
fn card_number(device: Device) -> Option<usize> {
    match device {
        Device::Cuda(number) => Some(number),
        Device::Cpu | Device::WebGpu => None,
    }
}
