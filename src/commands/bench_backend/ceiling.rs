//! The most that a device can do: what the speed of a backend is compared with.

#[cfg(any(feature = "cpu", feature = "cuda"))]
use anyhow::Context;
#[cfg(any(feature = "cpu", feature = "cuda"))]
use embedgate_config::BackendType;
use embedgate_config::ModelConfig;
use embedgate_core::{Backend, EncoderConfig};

use super::Failure;
use crate::model::surroundings::Surroundings;
#[cfg(feature = "cuda")]
use crate::{commands::doctor::card, model::engine};

/// The most that a device does in a second: multiplications and additions of the layers' products, and of attention's.
#[derive(Clone, Copy)]
pub(super) struct Ceiling {
    pub(super) layers: f64,
    pub(super) attention: f64,
}

/// The fastest product of embedgate's own kernels, of the model's shapes.
#[cfg(feature = "cuda")]
pub(super) fn ceiling_of_card(
    model: &ModelConfig,
    rows: usize,
    encoder: &EncoderConfig,
    surroundings: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    if model.backend.kind != BackendType::Cuda {
        return Ok(None);
    }
    let card = engine::card(model.backend.one_device(), surroundings)?;
    let shapes = card::shapes(encoder.hidden_size, encoder.intermediate_size);
    let speeds = embedgate_cuda::product_speeds(&card, rows, &shapes);
    let speeds = speeds.context("products cannot be timed")?;
    let format = engine::format(model);
    let of_format = speeds.iter().filter(|speed| speed.format == format);
    let most = of_format
        .map(|speed| speed.teraflops() * 1e12)
        .fold(0.0, f64::max);
    Ok(Some(Ceiling {
        layers: most,
        attention: most,
    }))
}

/// The fastest product of embedgate's own kernels: there are none in this build.
#[cfg(not(feature = "cuda"))]
pub(super) fn ceiling_of_card(
    _: &ModelConfig,
    _: usize,
    _: &EncoderConfig,
    _: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    Ok(None)
}

/// The most that the processor does in oneDNN's products, in the precision of the backend.
#[cfg(feature = "cpu")]
pub(super) fn ceiling(
    model: &ModelConfig,
    backend: &dyn Backend,
    surroundings: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    use embedgate_core::Precision;

    let Ok(library) = embedgate_cpu::runtime::load(&surroundings.onednn()) else {
        return Ok(None);
    };
    let (threads, precision) = (surroundings.threads(model), backend.info().precision);
    if !embedgate_cpu::runs(library, precision) {
        return Ok(None);
    }
    let of_attention = match model.backend.kind {
        BackendType::Onnx => Precision::F32,
        _ => embedgate_cpu::of_attention(precision, library.instructions()),
    };
    let cores = surroundings.cores(model);
    let measured = |precision| {
        embedgate_cpu::ceiling(library, precision, threads, &cores)
            .context("the ceiling is not known")
    };
    Ok(Some(Ceiling {
        layers: measured(precision)?,
        attention: measured(of_attention)?,
    }))
}

/// The most that the processor does: not known in this build.
#[cfg(not(feature = "cpu"))]
pub(super) fn ceiling(
    _: &ModelConfig,
    _: &dyn Backend,
    _: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    Ok(None)
}
