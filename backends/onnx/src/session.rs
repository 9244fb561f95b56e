//! The backend: one session of ONNX Runtime, and the padding and pooling around it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, EncoderConfig, Layout, Matrix, ModelFolder,
    Outputs, Pooling, Precision, SparseVector, TokenBatch, classes::length_classes,
};
use ort::{
    session::{Session, SessionInputValue, SessionOutputs},
    value::{Outlet, TensorElementType},
};

use crate::{
    comparison,
    device::{self, Device},
    file::{check_file, model_file},
    open::{Opened, Opener, bytes_overflow, stamp},
    padded::{Expected, Padded, Rows},
    runtime::{self, Libraries},
    wiring::{Dense, Element, Port, Wiring},
};

/// Models that were compared, by device and state of the file: it takes a copy in the processor's memory.
static COMPARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// ONNX Runtime's words where a provider lacks an operator.
const NO_IMPLEMENTATION: &str = "Could not find an implementation";

/// The options that are chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model file; none means to look in the model folder.
    pub file: Option<PathBuf>,
    /// The device that runs the model.
    pub device: Device,
    /// Chooses among the folder's models; a model that states its precision must be in it.
    pub precision: Precision,
    /// The places of ONNX Runtime and its plugins.
    pub libraries: Libraries,
    /// The method that makes the dense vector of token vectors, where the model leaves that open; a cross-encoder has
    /// none.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// Threads within one operation.
    pub threads: usize,
    /// The folder to keep files in: copies of those that are mapped, and weights as they are packed for this processor.
    pub state_folder: Option<PathBuf>,
    /// True where all sessions of the model are to share weights packed for the processor, which needs the state folder.
    pub shares_weights: bool,
}

/// An ONNX model that is loaded.
pub struct OnnxBackend {
    model: Model,
    file: PathBuf,
    opened: Opened,
    device: Device,
    /// Tokens of a call, padding included, that the device was found to have memory for.
    most_tokens: usize,
}

/// The data of the model outside its session.
struct Model {
    info: BackendInfo,
    pooling: Pooling,
    special_token_ids: Vec<u32>,
    encoder: EncoderConfig,
    wiring: Wiring,
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
            (Device::Cuda(_), Some(folder)) => device::preload(folder)?,
            _ => {}
        }
        let file = model_file(folder, options.file.as_deref(), device, options.precision)?;
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
            Wiring::of_cross_encoder(&inputs, &outputs, folder.encoder.type_vocabulary_size)
        } else {
            Wiring::of_embedder(&inputs, &outputs)
        };
        let wiring = wiring.map_err(load_error)?;
        let info = BackendInfo {
            backend: "onnx",
            device: device.to_string(),
            precision: options.precision,
            dimensions: dimensions(session, &wiring, folder),
            outputs: Outputs {
                dense: wiring.dense.is_some(),
                sparse: wiring.sparse.is_some(),
                multi_vector: wiring.multi_vector.is_some(),
                token_vectors: wiring.tokens.is_some(),
                score: wiring.score.is_some(),
            },
            max_sequence_tokens: options
                .max_sequence_tokens
                .min(folder.encoder.max_sequence_tokens()),
            vocabulary_size: folder.encoder.vocabulary_size,
            type_vocabulary_size: folder.encoder.type_vocabulary_size,
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

    /// Runs sequences of like length in as few padded calls as its device has memory for, and writes their rows into
    /// `results`. On a processor in one.
    fn run_class(
        &mut self,
        class: &[usize],
        batch: &TokenBatch,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let mut rest = class;
        while !rest.is_empty() {
            let (n, length) = self.next_call(rest, batch);
            let error = match self.run_call(&rest[..n], batch, results) {
                Ok(()) => {
                    rest = &rest[n..];
                    continue;
                }
                Err(error) if self.device == Device::Cpu => return Err(error),
                Err(error) => error,
            };
            if n == 1 {
                return Err(match self.still_works() {
                    // It has no memory for this one.
                    true => error,
                    false => BackendError::Lost {
                        what: "the device failed",
                        source: error.into(),
                    },
                });
            }
            self.most_tokens = n.div_ceil(2) * length;
            tracing::warn!(
                error = %error,
                "{} failed with {n} sequences of {length} tokens, batches go in parts of {} tokens from now on: {error}",
                self.device,
                self.most_tokens
            );
        }
        Ok(())
    }

    /// Tries the device with a sequence that has room anywhere.
    fn still_works(&mut self) -> bool {
        let batch: TokenBatch = std::iter::once([0_u32, 0].as_slice()).collect();
        // Nobody wants its results.
        self.run_call(&[0], &batch, &mut EmbeddingBatch::default())
            .is_ok()
    }

    /// The number of sequences that go in one call, at least one, and the length that they are padded to.
    fn next_call(&self, sequences: &[usize], batch: &TokenBatch) -> (usize, usize) {
        let length = sequences
            .iter()
            .map(|&i| batch.sequence(i).ids.len())
            .max()
            .unwrap_or(1);
        let fitting = (self.most_tokens / length.max(1)).max(1);
        (fitting.min(sequences.len()), length)
    }

    /// Runs sequences of like length in one padded call and writes their rows into `results`.
    fn run_call(
        &mut self,
        class: &[usize],
        batch: &TokenBatch,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let padded = Padded::new(batch, class, &self.model.encoder);
        let inputs = self
            .model
            .wiring
            .inputs
            .iter()
            .map(|input| Ok((input.name.clone(), padded.input(input)?)));
        let inputs: Vec<(String, SessionInputValue<'_>)> = inputs
            .collect::<ort::Result<_>>()
            .map_err(|e| BackendError::inference("cannot make the inputs", e))?;
        // Until the outputs are dropped.
        let _turn = self.device.turn();
        let outputs = self
            .opened
            .session()
            .run(inputs)
            .map_err(|e| BackendError::inference("ONNX Runtime failed", e))?;
        self.model.read(&outputs, class, batch, &padded, results)
    }
}

impl Model {
    /// Copies the rows of each sequence to its place.
    fn read(
        &self,
        outputs: &SessionOutputs<'_>,
        class: &[usize],
        batch: &TokenBatch,
        padded: &Padded,
        results: &mut EmbeddingBatch,
    ) -> Result<(), BackendError> {
        let (length, width) = (padded.length, self.info.dimensions);
        let places = || class.iter().copied().enumerate();
        match (&mut results.dense, &self.wiring.dense) {
            (Some(dense), Some(Dense::Pooled(name))) => {
                let rows = Rows::of(outputs, name, Expected::Pooled { width })?;
                for (at, i) in places() {
                    dense.row_mut(i).copy_from_slice(rows.get(at, 0, 1)?);
                }
            }
            (Some(dense), Some(Dense::Tokens(name))) => {
                let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
                for (at, i) in places() {
                    self.pooling
                        .pool(rows.get(at, 0, padded.lengths[at])?, dense.row_mut(i));
                }
            }
            _ => {}
        }
        if let (Some(sparse), Some(name)) = (&mut results.sparse, &self.wiring.sparse) {
            let rows = Rows::of(outputs, name, Expected::Weights { length })?;
            for (at, i) in places() {
                let weights = rows.get(at, 0, padded.lengths[at])?;
                sparse[i] = SparseVector::from_token_weights(
                    batch.sequence(i).ids,
                    weights,
                    &self.special_token_ids,
                );
            }
        }
        if let (Some(multi), Some(name)) = (&mut results.multi_vector, &self.wiring.multi_vector) {
            let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
            // Some exports leave the first token out, as the reference does; others leave that to the caller.
            let first = usize::from(rows.length == length);
            for (at, i) in places() {
                multi[i] = Matrix {
                    data: rows.get(at, first, padded.lengths[at] - 1)?.to_vec(),
                    width,
                };
            }
        }
        if let (Some(tokens), Some(name)) = (&mut results.token_vectors, &self.wiring.tokens) {
            let rows = Rows::of(outputs, name, Expected::Tokens { length, width })?;
            for (at, i) in places() {
                tokens[i] = Matrix {
                    data: rows.get(at, 0, padded.lengths[at])?.to_vec(),
                    width,
                };
            }
        }
        if let (Some(scores), Some(name)) = (&mut results.scores, &self.wiring.score) {
            let rows = Rows::of(outputs, name, Expected::Pooled { width: 1 })?;
            for (at, i) in places() {
                scores[i] = rows.get(at, 0, 1)?[0];
            }
        }
        Ok(())
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
        let mut results = EmbeddingBatch {
            dense: outputs
                .dense
                .then(|| Matrix::zeros(n, self.model.info.dimensions)),
            sparse: outputs.sparse.then(|| vec![SparseVector::default(); n]),
            multi_vector: outputs.multi_vector.then(|| vec![Matrix::default(); n]),
            token_vectors: outputs.token_vectors.then(|| vec![Matrix::default(); n]),
            scores: outputs.score.then(|| vec![0.0; n]),
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

fn port(outlet: &Outlet) -> Port {
    let element = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Float32) => Element::F32,
        Some(TensorElementType::Int64) => Element::I64,
        Some(TensorElementType::Int32) => Element::I32,
        _ => Element::Other,
    };
    let shape = outlet
        .dtype()
        .tensor_shape()
        .map(|shape| shape.to_vec())
        .unwrap_or_default();
    Port {
        name: outlet.name().to_owned(),
        shape,
        element,
    }
}

/// The width that the model states for its dense output; the folder's where it states none; 0 without such an output.
fn dimensions(session: &Session, wiring: &Wiring, folder: &ModelFolder) -> usize {
    let Some(Dense::Tokens(name) | Dense::Pooled(name)) = &wiring.dense else {
        return 0;
    };
    let outlet = session
        .outputs()
        .iter()
        .find(|outlet| outlet.name() == name);
    let last = outlet.and_then(|outlet| outlet.dtype().tensor_shape()?.last().copied());
    last.and_then(|width| usize::try_from(width).ok())
        .filter(|width| *width > 0)
        .unwrap_or(folder.encoder.hidden_size)
}
