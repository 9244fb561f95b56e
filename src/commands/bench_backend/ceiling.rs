//! The most that a device can do: what the speed of a backend is compared with.

#[cfg(feature = "cpu")]
use anyhow::Context;
use embedgate_core::Precision;

use super::Failure;
use crate::model::{loader::Loader, resolved::ResolvedModel};

/// The most that a device does in a second: multiplications and additions of the layers' products, and of attention's.
#[derive(Clone, Copy)]
pub(super) struct Ceiling {
    pub(super) layers: f64,
    pub(super) attention: f64,
}

/// The fastest product of embedgate's own kernels, of the model's shapes; none where other kernels run it.
pub(super) fn ceiling_of_card(
    loader: &Loader<'_>,
    model: &ResolvedModel,
    rows: usize,
) -> Result<Option<Ceiling>, Failure> {
    let backend = &model.backend;
    let engine = backend.engine;
    let most = engine.product_speed(loader.plan, backend, rows, loader.context)?;
    Ok(most.map(|most| Ceiling {
        layers: most,
        attention: most,
    }))
}

/// The most that the processor does in oneDNN's products, in the precision of the backend.
#[cfg(feature = "cpu")]
pub(super) fn ceiling(
    loader: &Loader<'_>,
    model: &ResolvedModel,
    precision: Precision,
) -> Result<Option<Ceiling>, Failure> {
    let Ok(library) = embedgate_cpu::runtime::load(&loader.context.onednn()) else {
        return Ok(None);
    };
    if !embedgate_cpu::runs(library, precision) {
        return Ok(None);
    }
    let of_attention = model.backend.engine.precision_of_attention(precision);
    let measured = |precision| {
        embedgate_cpu::ceiling(library, precision, model.threads, &model.cores)
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
    _: &Loader<'_>,
    _: &ResolvedModel,
    _: Precision,
) -> Result<Option<Ceiling>, Failure> {
    Ok(None)
}
