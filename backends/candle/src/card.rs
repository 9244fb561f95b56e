//! NVIDIA cards, which only builds with candle's code for them can open.

use candle_core::Device;
use embedgate_core::BackendError;

/// Opens an NVIDIA card, to see whether it can be.
///
/// # Errors
/// When this build has no code for cards, or no driver or no such card is there.
pub fn check_card(number: usize) -> Result<(), BackendError> {
    card(number).map(|_| ())
}

/// Opens an NVIDIA card.
#[cfg(feature = "cuda")]
pub(crate) fn card(number: usize) -> Result<Device, BackendError> {
    // What candle calls the driver by panics where its library is missing.
    let opened = std::panic::catch_unwind(|| Device::new_cuda(number));
    let opened = opened.map_err(|_| {
        BackendError::MissingLibrary(format!(
            "candle cannot open cuda:{number}: NVIDIA's driver, or cuBLAS or cuRAND of CUDA 13, is missing"
        ))
    })?;
    opened.map_err(|e| BackendError::Load(format!("candle cannot open cuda:{number}: {e}")))
}

/// Opens an NVIDIA card.
#[cfg(not(feature = "cuda"))]
pub(crate) fn card(number: usize) -> Result<Device, BackendError> {
    Err(BackendError::Load(format!(
        "candle cannot open cuda:{number}: this embedgate was built without the cargo feature candle-cuda, which \
         scripts/candle-cuda builds; type = \"cuda\" runs the model's own weights there in every build"
    )))
}
