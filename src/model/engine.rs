//! Opens the backend that a model is configured with. The match that names the backends of the server is here.

#[cfg(any(feature = "candle", feature = "cuda", feature = "onnx"))]
use embedgate_config::Device;
use embedgate_config::{BackendType, ModelConfig, PrecisionChoice};
use embedgate_core::Backend;

use super::{
    load::{LoadError, Plan},
    surroundings::Surroundings,
    tokenizer::TextTokenizer,
};

/// The configuration with nothing left open: which backend runs the model on this machine, in which precision.
///
/// # Errors
/// [`LoadError::Backend`] when the library is missing without which the model cannot run as it is asked to,
/// [`LoadError::Setting`] when this processor cannot run it so.
#[cfg_attr(
    not(feature = "cpu"),
    expect(unused_variables, reason = "only oneDNN is looked up")
)]
pub(crate) fn resolve(
    name: &str,
    config: &ModelConfig,
    surroundings: &Surroundings,
) -> Result<ModelConfig, LoadError> {
    let mut resolved = config.clone();
    let backend = &mut resolved.backend;
    match backend.kind {
        #[cfg(feature = "cpu")]
        BackendType::Cpu => match embedgate_cpu::runtime::load(&surroundings.onednn()) {
            Ok(library) => {
                if backend.precision == PrecisionChoice::Auto {
                    let chosen = embedgate_cpu::fastest(library.instructions());
                    tracing::info!(
                        model.name = name,
                        precision = %chosen,
                        "model {name} runs in {chosen}: this processor has {:?}",
                        library.instructions()
                    );
                    backend.precision = chosen.into();
                }
                let precision = backend.precision.said().unwrap_or_default();
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
            }
            Err(missing) => match backend.precision {
                #[cfg(feature = "candle")]
                PrecisionChoice::Auto | PrecisionChoice::F32 => {
                    let pinned = match backend.pin_threads {
                        Some(true) => " (its threads stay on no cores)",
                        _ => "",
                    };
                    tracing::warn!(
                        model.name = name,
                        "model {name} runs with candle, in f32 and slower{pinned}: {missing}"
                    );
                    (backend.kind, backend.precision) = (BackendType::Candle, PrecisionChoice::F32);
                }
                _ => return Err(missing.into()),
            },
        },
        #[cfg(all(not(feature = "cpu"), feature = "candle"))]
        BackendType::Cpu if !backend.precision.needs_onednn() => {
            (backend.kind, backend.precision) = (BackendType::Candle, PrecisionChoice::F32);
        }
        BackendType::Cuda if backend.precision == PrecisionChoice::Auto => {
            backend.precision = PrecisionChoice::F16;
        }
        // The others have f32 everywhere.
        _ if backend.precision == PrecisionChoice::Auto => backend.precision = PrecisionChoice::F32,
        _ => {}
    }
    Ok(resolved)
}

/// Opens the files that a backend needs, but reads no weights.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
#[cfg_attr(
    not(any(feature = "onnx", feature = "cuda")),
    allow(
        unused_variables,
        reason = "not all builds look up libraries and cards"
    )
)]
pub(crate) fn inspect(
    plan: &Plan,
    config: &ModelConfig,
    surroundings: &Surroundings,
) -> Result<(), LoadError> {
    match config.backend.kind {
        #[cfg(feature = "cpu")]
        BackendType::Cpu => open_weights(plan),
        #[cfg(feature = "candle")]
        BackendType::Candle => {
            for device in config.backend.all_devices() {
                if let Device::Cuda(number) = device {
                    embedgate_candle::check_card(number)?;
                }
            }
            open_weights(plan)
        }
        #[cfg(feature = "cuda")]
        BackendType::Cuda => {
            for device in config.backend.all_devices() {
                card(device, surroundings)?;
            }
            open_weights(plan)
        }
        #[cfg(feature = "onnx")]
        BackendType::Onnx => {
            for device in config.backend.all_devices() {
                embedgate_onnx::check(
                    &plan.folder,
                    config.backend.file.as_deref(),
                    onnx_device(device),
                    config.backend.precision.said().unwrap_or_default(),
                    &surroundings.onnx_libraries(),
                )?;
            }
            Ok(())
        }
        #[cfg(not(all(
            feature = "candle",
            feature = "onnx",
            feature = "cpu",
            feature = "cuda"
        )))]
        missing => Err(LoadError::Setting(not_built(missing))),
    }
}

#[cfg(any(feature = "candle", feature = "cpu", feature = "cuda"))]
fn open_weights(plan: &Plan) -> Result<(), LoadError> {
    let opened = embedgate_weights::Weights::open(&plan.folder.path);
    opened
        .map(|_| ())
        .map_err(|e| embedgate_core::BackendError::Load(e.to_string()).into())
}

#[cfg(not(all(
    feature = "candle",
    feature = "onnx",
    feature = "cpu",
    feature = "cuda"
)))]
fn not_built(missing: BackendType) -> String {
    format!(
        "this embedgate was built without the {missing} backend: build it with that cargo feature"
    )
}

/// The card that a model is configured for; none for the processor.
#[cfg(feature = "candle")]
fn card_number(config: &ModelConfig) -> Option<usize> {
    match config.backend.one_device() {
        Device::Cuda(number) => Some(number),
        Device::Cpu | Device::WebGpu => None,
    }
}

/// Tokens that go through a model on a card at once, where the configuration says nothing.
pub(crate) const CARD_TOKENS: usize = 16 << 10;
/// Rows of the measurements by which kernels are chosen on a card: enough to fill it.
#[cfg(feature = "cuda")]
const TIMED_ROWS: usize = 4096;

/// The card and its driver, on which vectors depend beside the model and its configuration: they choose among kernels.
///
/// # Errors
/// When there is no such card.
#[cfg_attr(
    not(any(feature = "cuda", feature = "onnx")),
    expect(
        unused_variables,
        clippy::unnecessary_wraps,
        reason = "only cards are looked up"
    )
)]
pub(crate) fn runs_on(
    config: &ModelConfig,
    surroundings: &Surroundings,
) -> Result<String, LoadError> {
    #[cfg(feature = "onnx")]
    if config.backend.one_device() == Device::WebGpu {
        let adapter = embedgate_onnx::device::adapter(&surroundings.onnx_libraries())?;
        return Ok(adapter.identity);
    }
    #[cfg(feature = "cuda")]
    if let Device::Cuda(_) = config.backend.one_device() {
        let devices = config.backend.all_devices().into_iter();
        if config.backend.kind == BackendType::Cuda {
            let described = devices.map(|device| {
                let card = card(device, surroundings)?;
                let (name, capability, driver) = (&card.name, card.capability, card.driver_version);
                let kernels = embedgate_cuda::kernels_id();
                Ok(format!("{name} {capability:?} {driver} {kernels}"))
            });
            return described
                .collect::<Result<Vec<_>, LoadError>>()
                .map(|all| all.join(" "));
        }
        // Other libraries run on older cards and drivers, too.
        let listed = embedgate_cuda::Device::list(surroundings.cuda()).unwrap_or_default();
        let described = devices.filter_map(|device| listed.get(number(device)));
        let described: Vec<_> = described
            .map(|card| format!("{} {:?}", card.name, card.capability))
            .collect();
        return Ok(described.join(" "));
    }
    Ok(String::new())
}

/// The format of a model's numbers on a card.
#[cfg(feature = "cuda")]
pub(crate) fn format(config: &ModelConfig) -> embedgate_cuda::Format {
    match config.backend.precision {
        PrecisionChoice::Bf16 => embedgate_cuda::Format::Bf16,
        _ => embedgate_cuda::Format::F16,
    }
}

/// A card, by its device.
///
/// # Errors
/// When there is no such card.
#[cfg(feature = "cuda")]
pub(crate) fn card(
    device: Device,
    surroundings: &Surroundings,
) -> Result<std::sync::Arc<embedgate_cuda::Device>, LoadError> {
    let opened = embedgate_cuda::Device::open(surroundings.cuda(), number(device));
    opened.map_err(|error| LoadError::Setting(error.to_string()))
}

/// The number of a card.
#[cfg(feature = "cuda")]
fn number(device: Device) -> usize {
    match device {
        Device::Cuda(number) => number,
        // Configurations are refused where the type and the device do not fit.
        Device::Cpu | Device::WebGpu => 0,
    }
}

/// A device, as ONNX Runtime's backend has it.
#[cfg(feature = "onnx")]
pub(super) fn onnx_device(device: Device) -> embedgate_onnx::device::Device {
    match device {
        Device::Cpu => embedgate_onnx::device::Device::Cpu,
        Device::WebGpu => embedgate_onnx::device::Device::WebGpu,
        Device::Cuda(number) => embedgate_onnx::device::Device::Cuda(number),
    }
}

/// Loads a backend, of a configuration that was resolved.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
pub(crate) fn open(
    plan: &Plan,
    config: &ModelConfig,
    tokenizer: &TextTokenizer,
    surroundings: &Surroundings,
) -> Result<Box<dyn Backend>, LoadError> {
    match config.backend.kind {
        #[cfg(feature = "cpu")]
        BackendType::Cpu => {
            let library = embedgate_cpu::runtime::load(&surroundings.onednn())?;
            let options = embedgate_cpu::Options {
                pooling: plan.pooling,
                max_sequence_tokens: plan.max_tokens,
                special_token_ids: tokenizer.special_token_ids(),
                threads: surroundings.threads(config),
                cores: surroundings.cores(config),
                precision: config.backend.precision.said().unwrap_or_default(),
            };
            let loaded = embedgate_cpu::CpuBackend::load(&plan.folder, library, options)?;
            Ok(Box::new(loaded))
        }
        #[cfg(feature = "candle")]
        BackendType::Candle => {
            let (pooling, threads) = (plan.pooling, surroundings.threads(config));
            let options = embedgate_candle::Options {
                special_token_ids: tokenizer.special_token_ids(),
                precision: config.backend.precision.said().unwrap_or_default(),
                card: card_number(config),
                ..embedgate_candle::Options::on_processor(pooling, plan.max_tokens, threads)
            };
            let loaded = embedgate_candle::CandleBackend::load(&plan.folder, options)?;
            Ok(Box::new(loaded))
        }
        #[cfg(feature = "cuda")]
        BackendType::Cuda => {
            let place = config.backend.one_device();
            let (device, number) = (card(place, surroundings)?, number(place));
            tracing::info!(
                "{place} is {} of compute capability {}.{} with {} MiB, its driver is for CUDA {}.{}",
                device.name,
                device.capability.0,
                device.capability.1,
                device.memory >> 20,
                device.driver_version / 1000,
                device.driver_version % 1000 / 10
            );
            let options = embedgate_cuda::Options {
                pooling: plan.pooling,
                max_sequence_tokens: plan.max_tokens,
                special_token_ids: tokenizer.special_token_ids(),
                format: format(config),
                max_batch_tokens: config.max_batch_tokens.unwrap_or(CARD_TOKENS),
                timed_rows: config
                    .max_batch_tokens
                    .unwrap_or(TIMED_ROWS)
                    .min(TIMED_ROWS),
            };
            let loaded = embedgate_cuda::CudaBackend::load(&plan.folder, &device, number, options)?;
            Ok(Box::new(loaded))
        }
        #[cfg(feature = "onnx")]
        BackendType::Onnx => {
            let options = embedgate_onnx::Options {
                file: config.backend.file.clone(),
                device: onnx_device(config.backend.one_device()),
                precision: config.backend.precision.said().unwrap_or_default(),
                libraries: surroundings.onnx_libraries(),
                pooling: plan.pooling,
                max_sequence_tokens: plan.max_tokens,
                special_token_ids: tokenizer.special_token_ids(),
                threads: surroundings.threads(config),
                state_folder: surroundings.state_folder.clone(),
                shares_weights: config.replicas.get() > 1,
            };
            let loaded = embedgate_onnx::OnnxBackend::load(&plan.folder, options)?;
            Ok(Box::new(loaded))
        }
        #[cfg(not(all(
            feature = "candle",
            feature = "onnx",
            feature = "cpu",
            feature = "cuda"
        )))]
        missing => Err(LoadError::Setting(not_built(missing))),
    }
}
