//! The backend `onnx`: an ONNX model, with ONNX Runtime, on any device.

use std::path::Path;

use embedgate_config::{BackendType, Device};
#[cfg(feature = "tools")]
use embedgate_config::{ModelConfig, PrecisionChoice};
use embedgate_core::Backend;

use super::{Engine, described_by_driver};
use crate::model::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    loader::Loader,
    resolved::{ResolvedBackend, ResolvedModel},
};

/// The engine for ONNX models.
#[derive(Debug)]
pub(super) struct Onnx;

impl Engine for Onnx {
    fn kind(&self) -> BackendType {
        BackendType::Onnx
    }

    fn inspect(
        &self,
        plan: &Plan,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<(), LoadError> {
        for device in backend.devices() {
            let choice = embedgate_onnx::FileChoice {
                named: backend.file.as_deref(),
                device: device_of(device),
                precision: backend.precision,
            };
            embedgate_onnx::check(&plan.folder, choice, &context.onnx_libraries())?;
        }
        Ok(())
    }

    fn open(
        &self,
        loader: &Loader<'_>,
        model: &ResolvedModel,
        device: Device,
    ) -> Result<Box<dyn Backend>, LoadError> {
        let options = embedgate_onnx::Options {
            file: model.backend.file.clone(),
            device: device_of(device),
            precision: model.backend.precision,
            libraries: loader.context.onnx_libraries(),
            pooling: loader.plan.pooling,
            max_sequence_tokens: loader.plan.max_tokens,
            special_token_ids: loader.tokenizer.special_token_ids(),
            threads: model.threads,
            state_folder: loader.context.state_folder.clone(),
            shares_weights: model.replicas.get() > 1,
        };
        let loaded = embedgate_onnx::OnnxBackend::load(&loader.plan.folder, options)?;
        Ok(Box::new(loaded))
    }

    fn runs_on(
        &self,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<String, LoadError> {
        if backend.device == Device::WebGpu {
            let adapter = embedgate_onnx::device::adapter(&context.onnx_libraries())?;
            return Ok(adapter.identity);
        }
        Ok(described_by_driver(backend, context))
    }

    /// The file is mapped; the other memory that it takes is not known before it runs.
    fn knows_memory(&self) -> bool {
        false
    }

    fn reads(&self, folder: &Path, backend: &ResolvedBackend) -> Box<dyn Fn(&str) -> bool> {
        let chosen = chosen_model(folder, backend);
        Box::new(move |name| {
            if name.ends_with(".safetensors") || name.starts_with("pytorch_model") {
                return false;
            }
            // Variants for other devices and precisions may lie beside this one.
            match &chosen {
                Some(model) if name.contains(".onnx") => name.starts_with(model),
                _ => true,
            }
        })
    }

    /// Counts the one that WebGPU chooses, unless a processor plays it: the processor's own backend is faster.
    fn n_cards(&self, context: &LoadContext) -> Result<usize, String> {
        let adapter = embedgate_onnx::device::adapter(&context.onnx_libraries());
        match adapter.map_err(|error| error.to_string())?.is_hardware {
            true => Ok(1),
            false => Err("a processor plays the graphics card".into()),
        }
    }

    #[cfg(feature = "tools")]
    fn check_compared(
        &self,
        asked: &[PrecisionChoice],
        model: &ModelConfig,
    ) -> Result<(), &'static str> {
        if model.backend.file.is_some() {
            return Err(
                "--precision chooses among the ONNX models of a folder: leave out backend.file",
            );
        }
        if asked.contains(&PrecisionChoice::Bf16) {
            return Err(
                "there are no ONNX models in bf16: --precision f32,int8 compares those that there are",
            );
        }
        Ok(())
    }
}

/// The name of the ONNX model that is run, where its folder chooses it.
fn chosen_model(folder: &Path, backend: &ResolvedBackend) -> Option<String> {
    if backend.file.is_some() {
        return None;
    }
    let model = embedgate_onnx::find_model(folder, device_of(backend.device), backend.precision)?;
    Some(model.file_name()?.to_string_lossy().into_owned())
}

/// A device, as ONNX Runtime's backend has it.
fn device_of(device: Device) -> embedgate_onnx::device::Device {
    match device {
        Device::Cpu => embedgate_onnx::device::Device::Cpu,
        Device::WebGpu => embedgate_onnx::device::Device::WebGpu,
        Device::Cuda(number) => embedgate_onnx::device::Device::Cuda(number),
    }
}
