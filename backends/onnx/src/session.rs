//! The backend: one session of ONNX Runtime, and the padding and pooling around it.

mod calls;
mod model;
mod ports;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use embedgate_core::{
    Backend, BackendError, BackendInfo, Column, EmbeddingBatch, Head, Layout, ModelFolder, Outputs,
    PerHead, TokenBatch, classes::length_classes,
};
use ort::value::Outlet;

use self::{
    model::Model,
    ports::{port, width},
};
use crate::{
    Options, comparison, cuda,
    device::{self, Device},
    file::{FileChoice, check_file, model_file},
    open::{Opened, Opener, bytes_overflow, stamp},
    runtime,
    wiring::{HeadTensor, Wiring},
};

/// Models that were compared, by device and state of the file: it takes a copy in the processor's memory.
static COMPARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// ONNX Runtime's words where a provider lacks an operator.
const NO_IMPLEMENTATION: &str = "Could not find an implementation";
/// An ONNX model that is loaded.
pub struct OnnxBackend {
    model: Model,
    file: PathBuf,
    opened: Opened,
    device: Device,
    /// Tokens of a call, padding included, that the device was found to have memory for.
    most_tokens: usize,
}

impl OnnxBackend {
    /// Checks the model's references to other files, loads it and finds out what it takes and gives. On a device, compares a
    /// few results with the processor's.
    ///
    /// # Errors
    /// [`BackendError::MissingLibrary`] when there is no ONNX Runtime, or no device; [`BackendError::Load`] names the file and
    /// what is wrong with it, or how far the device's results are off.
    pub fn load(folder: &ModelFolder, options: Options) -> Result<Self, BackendError> {
        let (device, mut on_processor) = (options.device, options.clone());
        let mut loaded = Self::load_for(bytes_overflow(), folder, options)?;
        if device == Device::Cpu {
            return Ok(loaded);
        }
        let compared = format!("{device} {}", state(&loaded.file)?);
        let known = || COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&compared) {
            return Ok(loaded);
        }
        on_processor.device = Device::Cpu;
        on_processor.file = Some(loaded.file.clone());
        on_processor.shares_weights = false;
        match Self::load_for(bytes_overflow(), folder, on_processor) {
            Ok(mut processor) => comparison::compare(&mut loaded, &mut processor)?,
            Err(error) if error.to_string().contains(NO_IMPLEMENTATION) => tracing::warn!(
                "what {device} gives is not compared with what the processor gives, which has not all operators of {}",
                loaded.file.display()
            ),
            Err(error) => return Err(error),
        }
        known().insert(compared);
        Ok(loaded)
    }

    /// Loads the model for processors on which products of bytes overflow, or do not. Tests compare the two.
    ///
    /// # Errors
    /// As [`OnnxBackend::load`].
    pub fn load_for(
        bytes_overflow: bool,
        folder: &ModelFolder,
        options: Options,
    ) -> Result<Self, BackendError> {
        let (environment, library) = runtime::environment(&options.libraries.runtime)?;
        let device = options.device;
        match (device, &options.libraries.cuda) {
            (Device::WebGpu, _) => _ = device::adapter(&options.libraries)?,
            (Device::Cuda(_), Some(folder)) => cuda::preload(folder)?,
            _ => {}
        }
        let choice = FileChoice {
            named: options.file.as_deref(),
            device,
            precision: options.precision,
        };
        if folder.splade.is_some() {
            let message = "SPLADE models do not run from ONNX files yet: type = \"cpu\" runs their own weights";
            return Err(BackendError::Load(message.into()));
        }
        let file = model_file(folder, choice)?;
        let data = check_file(&file, options.precision)?;
        let load_error =
            |problem: String| BackendError::Load(format!("{}: {problem}", file.display()));
        let opener = Opener {
            environment,
            library,
            device,
            threads: options.threads,
            bytes_overflow,
            state_folder: options.state_folder.as_deref(),
        };
        let opened = match opener.state_folder {
            Some(kept_in) if options.shares_weights && device == Device::Cpu => {
                opener.open_shared(&file, &data, kept_in)
            }
            _ => opener.open(&file, &data),
        };
        let mut opened = opened.map_err(|e| load_error(e.to_string()))?;
        let session = &*opened.session();
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Vec<_>>();
        let (inputs, outputs) = (ports(session.inputs()), ports(session.outputs()));
        let wiring = if folder.is_cross_encoder {
            Wiring::of_cross_encoder(&inputs, &outputs, &folder.encoder)
        } else {
            Wiring::of_embedder(&inputs, &outputs, &folder.encoder)
        };
        let wiring = wiring.map_err(load_error)?;
        wiring.check_adapter(folder).map_err(load_error)?;
        let token_width = width(session, &wiring, folder);
        let (dimensions, is_pooled_by_model) = match wiring.heads.get(Head::Dense) {
            Some(HeadTensor::Tokens(_)) => (options.pooling.width_of(token_width), false),
            Some(HeadTensor::Pooled(_)) => (token_width, true),
            None => (0, false),
        };
        let info = BackendInfo {
            backend: "onnx",
            device: device.to_string(),
            precision: options.precision,
            dimensions,
            is_pooled_by_model,
            outputs: wiring.heads.heads(),
            max_sequence_tokens: options
                .max_sequence_tokens
                .min(folder.encoder.max_sequence_tokens),
            vocabulary_size: folder.encoder.vocabulary_size(),
            type_vocabulary_size: folder.encoder.n_segments(),
            layout: Layout::Padded,
        };
        let Options {
            pooling,
            special_token_ids,
            ..
        } = options;
        let encoder = folder.encoder.clone();
        let model = Model {
            info,
            token_width,
            pooling,
            special_token_ids,
            encoder,
            wiring,
        };
        Ok(Self {
            model,
            file,
            opened,
            device,
            most_tokens: usize::MAX,
        })
    }
}

impl Backend for OnnxBackend {
    fn info(&self) -> &BackendInfo {
        &self.model.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.model.info.check(batch, outputs)?;
        let n = batch.len();
        let width = self.model.info.dimensions;
        let mut results = EmbeddingBatch {
            columns: PerHead::of(outputs, |head| Column::empty(head.form(), n, width)),
        };
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.ids.len()).collect();
        for class in length_classes(&lengths) {
            self.run_class(&class, batch, &mut results)?;
        }
        Ok(results)
    }
}

/// A file and its state, which another file of the same name does not have.
fn state(file: &Path) -> Result<String, BackendError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|e| BackendError::Load(format!("{}: {e}", file.display())))?;
    Ok(format!("{} {}", file.display(), stamp(&metadata)))
}
