//! The backends of this program, each behind its cargo feature in a file of the folder, and the table that finds one by its type.
//!
//! Other code asks the [`Engine`], and names no type of backend.

#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "onnx")]
mod onnx;

use std::{fmt, path::Path};

#[cfg(feature = "tools")]
use embedgate_config::ModelConfig;
use embedgate_config::{BackendType, Device, PrecisionChoice};
use embedgate_core::{Backend, Precision};
use thiserror::Error;

#[cfg(feature = "cuda")]
use self::cuda::described_by_driver;
use super::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    loader::Loader,
    memory::estimate::{Estimate, Needs},
    placement::Placement,
    resolved::{ResolvedBackend, ResolvedModel},
};

/// The backends that are built.
static BUILT: &[&dyn Engine] = &[
    #[cfg(feature = "cpu")]
    &cpu::Cpu,
    #[cfg(feature = "candle")]
    &candle::Candle,
    #[cfg(feature = "onnx")]
    &onnx::Onnx,
    #[cfg(feature = "cuda")]
    &cuda::Cuda,
];

/// The backend that a written ONNX model is compared with, and its name in messages.
#[cfg(all(feature = "onnx", feature = "candle"))]
pub(crate) const REFERENCE: (BackendType, &str) = (BackendType::Candle, "candle");
/// The backend that a written ONNX model is compared with, and its name in messages.
#[cfg(all(feature = "onnx", feature = "cpu", not(feature = "candle")))]
pub(crate) const REFERENCE: (BackendType, &str) = (BackendType::Cpu, "the cpu backend");
/// The type that runs ONNX models.
#[cfg(all(feature = "onnx", any(feature = "candle", feature = "cpu")))]
pub(crate) const OF_ONNX_MODELS: BackendType = BackendType::Onnx;

/// Tokens that go through a model on a card at once, where the configuration says nothing.
pub(crate) const CARD_TOKENS: usize = 16 << 10;

/// A backend, as the gateway runs models with it.
pub(crate) trait Engine: fmt::Debug + Sync {
    /// The type by which the configuration names it.
    fn kind(&self) -> BackendType;

    /// Chooses the precision on this machine, and another type where this one cannot run the model named `name`.
    ///
    /// # Errors
    /// [`LoadError::Backend`] when the library is missing without which the model cannot run as it is asked to,
    /// [`LoadError::Setting`] when this processor cannot run it so.
    fn resolve(
        &self,
        _name: &str,
        place: &Placement,
        _context: &LoadContext,
    ) -> Result<(BackendType, Precision), LoadError> {
        let usual = self.kind().usual_precision();
        Ok((self.kind(), place.precision.said().unwrap_or(usual)))
    }

    /// Opens the files that it needs, but reads no weights.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what is wrong with it.
    fn inspect(
        &self,
        plan: &Plan,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<(), LoadError>;

    /// Loads the backend on one of the model's devices.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what is wrong with it.
    fn open(
        &self,
        loader: &Loader<'_>,
        model: &ResolvedModel,
        device: Device,
    ) -> Result<Box<dyn Backend>, LoadError>;

    /// Describes the cards and their driver. Vectors depend on them as on the model and its configuration: they choose among
    /// kernels. Empty on the processor.
    ///
    /// # Errors
    /// When there is no such card.
    fn runs_on(
        &self,
        backend: &ResolvedBackend,
        context: &LoadContext,
    ) -> Result<String, LoadError> {
        // Other libraries run on older cards and drivers, too.
        Ok(described_by_driver(backend, context))
    }

    /// Estimates the memory of a model: of replicas that share nothing, without the memory of a forward pass. A backend
    /// that knows better says so.
    fn memory(&self, needs: &Needs<'_>) -> Estimate {
        Estimate::of_separate_replicas(needs)
    }

    /// Returns true when its memory is known well enough to refuse a model by.
    fn knows_memory(&self) -> bool {
        true
    }

    /// Returns a test of the names of files for those that it reads of a model's folder: gigabytes of another backend's weights
    /// are not hashed.
    fn reads(&self, _folder: &Path, _backend: &ResolvedBackend) -> Box<dyn Fn(&str) -> bool> {
        Box::new(|name| !name.ends_with(".onnx") && !name.ends_with(".onnx_data"))
    }

    /// Counts the cards of the machine that it could run on, at least one.
    ///
    /// # Errors
    /// The reason why there is none.
    fn n_cards(&self, _context: &LoadContext) -> Result<usize, String> {
        Err(format!("the {} backend looks for no cards", self.kind()))
    }

    /// Returns a card that is fit to use, and its name, where it looks for cards quickly.
    fn usable_card(&self, _context: &LoadContext) -> Option<(Device, String)> {
        None
    }

    /// Returns the precision of attention, in a model of this precision on the processor.
    #[cfg(feature = "cpu")]
    fn precision_of_attention(&self, _precision: Precision) -> Precision {
        Precision::F32
    }

    /// Refuses precisions that `bench-backend` cannot compare on the processor.
    ///
    /// # Errors
    /// The reason, and what can be compared.
    #[cfg(feature = "tools")]
    fn check_compared(
        &self,
        _asked: &[PrecisionChoice],
        _model: &ModelConfig,
    ) -> Result<(), &'static str> {
        Ok(())
    }

    /// Measures the multiplications and additions that its own kernels do in a second, in the fastest product of the model's
    /// shapes with so many rows; none where it has no kernels of its own.
    ///
    /// # Errors
    /// When the card cannot be used.
    #[cfg(feature = "tools")]
    fn product_speed(
        &self,
        _plan: &Plan,
        _backend: &ResolvedBackend,
        _rows: usize,
        _context: &LoadContext,
    ) -> Result<Option<f64>, LoadError> {
        Ok(None)
    }
}

/// A type of backend that this program was built without.
#[derive(Clone, Copy, Debug, Error)]
#[error("this embedgate was built without the {0} backend")]
pub(crate) struct NotBuilt(BackendType);

impl From<NotBuilt> for LoadError {
    fn from(missing: NotBuilt) -> Self {
        Self::Setting(format!("{missing}: build it with that cargo feature"))
    }
}

/// The backends that are built, in the order in which they are listed.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn Engine> {
    BUILT.iter().copied()
}

/// Finds a backend by its type.
///
/// # Errors
/// When it is not built.
pub(crate) fn of(kind: BackendType) -> Result<&'static dyn Engine, NotBuilt> {
    all()
        .find(|engine| engine.kind() == kind)
        .ok_or(NotBuilt(kind))
}

/// The backend and the precision that run the model named `name` on this machine, in this place.
///
/// # Errors
/// [`LoadError::Backend`] when the library is missing without which the model cannot run as it is asked to,
/// [`LoadError::Setting`] when this processor, or this build, cannot run it so.
pub(super) fn resolve(
    name: &str,
    place: &Placement,
    context: &LoadContext,
) -> Result<(&'static dyn Engine, Precision), LoadError> {
    let (kind, precision) = match of(place.kind) {
        Ok(engine) => engine.resolve(name, place, context)?,
        Err(missing) => without_onednn(place).ok_or(missing)?,
    };
    Ok((of(kind)?, precision))
}

/// The type and the precision in which a model runs where oneDNN should and is not there: only candle has its f32.
fn without_onednn(place: &Placement) -> Option<(BackendType, Precision)> {
    let wants_f32 = matches!(
        place.precision,
        PrecisionChoice::Auto | PrecisionChoice::F32
    );
    let has_candle = of(BackendType::Candle).is_ok();
    let gives_way = place.kind == BackendType::Cpu && wants_f32 && has_candle;
    gives_way.then_some((BackendType::Candle, Precision::F32))
}

/// Loads a model that has no encoder, which all backends on the processor run alike; none where it has one.
#[cfg(any(feature = "candle", feature = "cpu"))]
fn open_static(plan: &Plan) -> Option<Result<Box<dyn Backend>, LoadError>> {
    let embedding = plan.folder.static_embedding.as_ref()?;
    let opened = embedgate_modules::open_static(embedding, &plan.folder, plan.max_tokens);
    Some(opened.map_err(LoadError::from))
}

#[cfg(any(feature = "candle", feature = "cpu", feature = "cuda"))]
fn open_weights(plan: &Plan) -> Result<(), LoadError> {
    if plan.folder.static_embedding.is_some() {
        // The modules' own are looked at anyway.
        return Ok(());
    }
    plan.folder.check_description()?;
    let opened = embedgate_weights::Weights::of_encoder(&plan.folder);
    opened
        .map(|_| ())
        .map_err(|e| embedgate_core::BackendError::Load(e.to_string()).into())
}

/// Describes cards as NVIDIA's driver does: not in this build.
#[cfg(not(feature = "cuda"))]
fn described_by_driver(_: &ResolvedBackend, _: &LoadContext) -> String {
    String::new()
}
