//! The backend: one session of ONNX Runtime, and the padding and pooling around it.

use std::path::{Path, PathBuf};

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, EncoderConfig, Layout, Matrix, ModelFolder,
    Outputs, Pooling, Precision, SparseVector, TokenBatch, classes::length_classes,
};
use ort::{
    session::{Session, SessionInputValue, SessionOutputs, builder::GraphOptimizationLevel},
    value::{Outlet, Tensor, TensorElementType},
};

use crate::{
    external,
    runtime::{self, Candidates},
    wiring::{Dense, Element, Input, Port, Role, Wiring},
};

/// What is chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model file; none means to look in the model folder.
    pub file: Option<PathBuf>,
    /// Where ONNX Runtime's library may be.
    pub library: Candidates,
    /// How token vectors become the dense vector, where the model leaves that open.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// Threads within one operation.
    pub threads: usize,
}

/// An ONNX model loaded on the CPU.
pub struct OnnxBackend {
    info: BackendInfo,
    pooling: Pooling,
    special_token_ids: Vec<u32>,
    encoder: EncoderConfig,
    wiring: Wiring,
    session: Session,
}

/// The ONNX file of a model folder: `onnx/model.onnx` as the hubs lay it out, or `model.onnx`.
#[must_use]
pub fn find_model(folder: &Path) -> Option<PathBuf> {
    ["onnx/model.onnx", "model.onnx"]
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.is_file())
}

impl OnnxBackend {
    /// Checks the model's references to other files, loads it and finds out what it takes and gives.
    ///
    /// # Errors
    /// [`BackendError::MissingLibrary`] when there is no ONNX Runtime; [`BackendError::Load`] names the file and what is
    /// wrong with it.
    pub fn load(folder: &ModelFolder, options: Options) -> Result<Self, BackendError> {
        let environment = runtime::environment(&options.library)?;
        let file = options.file.clone().or_else(|| find_model(&folder.path)).ok_or_else(|| {
            let shown = folder.path.display();
            BackendError::Load(format!(
                "{shown} has no onnx/model.onnx or model.onnx: write one with `embedgate convert {shown}`"
            ))
        })?;
        external::check(&file).map_err(BackendError::Load)?;
        let load_error = |e: ort::Error| BackendError::Load(format!("{}: {e}", file.display()));
        let session = open_session(environment, &file, options.threads).map_err(load_error)?;
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Vec<_>>();
        let wiring = Wiring::find(&ports(session.inputs()), &ports(session.outputs()))
            .map_err(|problem| BackendError::Load(format!("{}: {problem}", file.display())))?;
        let info = BackendInfo {
            backend: "onnx",
            device: "cpu".into(),
            precision: Precision::F32,
            dimensions: dimensions(&session, &wiring, folder),
            outputs: Outputs {
                sparse: wiring.sparse.is_some(),
                multi_vector: wiring.multi_vector.is_some(),
                ..Outputs::DENSE
            },
            max_sequence_tokens: options
                .max_sequence_tokens
                .min(folder.encoder.max_sequence_tokens()),
            vocabulary_size: folder.encoder.vocabulary_size,
            layout: Layout::Padded,
        };
        let Options {
            pooling,
            special_token_ids,
            ..
        } = options;
        Ok(Self {
            info,
            pooling,
            special_token_ids,
            encoder: folder.encoder.clone(),
            wiring,
            session,
        })
    }

    /// Runs sequences of like length in one padded call and writes their rows into `results`.
    fn run_class(
        &mut self,
        class: &[usize],
        batch: &TokenBatch,
        results: &mut Results,
    ) -> Result<(), BackendError> {
        let padded = Padded::new(batch, class, &self.encoder);
        let inputs = self
            .wiring
            .inputs
            .iter()
            .map(|input| Ok((input.name.clone(), padded.input(input)?)));
        let inputs: Vec<(String, SessionInputValue<'_>)> = inputs
            .collect::<ort::Result<_>>()
            .map_err(|e| BackendError::inference("cannot make the inputs", e))?;
        let outputs = self
            .session
            .run(inputs)
            .map_err(|e| BackendError::inference("ONNX Runtime failed", e))?;
        if let Some(dense) = &mut results.dense {
            let name = match &self.wiring.dense {
                Dense::Tokens(name) | Dense::Pooled(name) => name,
            };
            let rows = Rows::of(&outputs, name)?;
            for (at, &i) in class.iter().enumerate() {
                match &self.wiring.dense {
                    Dense::Pooled(_) => dense.row_mut(i).copy_from_slice(rows.get(
                        at,
                        0,
                        1,
                        self.info.dimensions,
                    )?),
                    Dense::Tokens(_) => {
                        let hidden = rows.get(at, 0, padded.lengths[at], self.info.dimensions)?;
                        self.pooling.pool(hidden, dense.row_mut(i));
                    }
                }
            }
        }
        if let (Some(sparse), Some(name)) = (&mut results.sparse, &self.wiring.sparse) {
            let rows = Rows::of(&outputs, name)?;
            for (at, &i) in class.iter().enumerate() {
                let weights = rows.get(at, 0, padded.lengths[at], 1)?;
                sparse[i] = SparseVector::from_token_weights(
                    batch.sequence(i).ids,
                    weights,
                    &self.special_token_ids,
                );
            }
        }
        if let (Some(multi), Some(name)) = (&mut results.multi_vector, &self.wiring.multi_vector) {
            let rows = Rows::of(&outputs, name)?;
            // Some exports leave the first token out, as the reference does; others leave that to the caller.
            let first = usize::from(rows.length == padded.length);
            for (at, &i) in class.iter().enumerate() {
                let data = rows
                    .get(at, first, padded.lengths[at] - 1, self.info.dimensions)?
                    .to_vec();
                multi[i] = Matrix {
                    data,
                    width: self.info.dimensions,
                };
            }
        }
        Ok(())
    }
}

impl Backend for OnnxBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.info.check(batch, outputs)?;
        let n = batch.len();
        let mut results = EmbeddingBatch {
            dense: outputs
                .dense
                .then(|| Matrix::zeros(n, self.info.dimensions)),
            sparse: outputs.sparse.then(|| vec![SparseVector::default(); n]),
            multi_vector: outputs.multi_vector.then(|| vec![Matrix::default(); n]),
            scores: None,
        };
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.ids.len()).collect();
        for class in length_classes(&lengths) {
            self.run_class(&class, batch, &mut results)?;
        }
        Ok(results)
    }
}

type Results = EmbeddingBatch;

fn open_session(
    environment: &ort::environment::Environment,
    file: &Path,
    threads: usize,
) -> ort::Result<Session> {
    let mut builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // Spinning threads take 30 to 40 % of a short query's time from the rest of the server.
        .with_intra_op_spinning(false)?
        // Lengths vary from call to call: a plan of memory for each would be kept for ever.
        .with_memory_pattern(false)?;
    builder.commit_from_file(file)
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

/// The width that the model states for its dense output; the folder's where it states none.
fn dimensions(session: &Session, wiring: &Wiring, folder: &ModelFolder) -> usize {
    let (Dense::Tokens(name) | Dense::Pooled(name)) = &wiring.dense;
    let outlet = session
        .outputs()
        .iter()
        .find(|outlet| outlet.name() == name);
    let last = outlet.and_then(|outlet| outlet.dtype().tensor_shape()?.last().copied());
    last.and_then(|width| usize::try_from(width).ok())
        .filter(|width| *width > 0)
        .unwrap_or(folder.encoder.hidden_size)
}

/// Sequences of one class, each padded to the longest, shape `(batch, length)`.
struct Padded {
    lengths: Vec<usize>,
    length: usize,
    ids: Vec<u32>,
    segments: Vec<u32>,
    positions: Vec<u32>,
}

impl Padded {
    fn new(batch: &TokenBatch, class: &[usize], encoder: &EncoderConfig) -> Self {
        let lengths: Vec<usize> = class.iter().map(|&i| batch.sequence(i).ids.len()).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let cells = class.len() * length;
        let mut padded = Self {
            length,
            ids: Vec::with_capacity(cells),
            segments: Vec::with_capacity(cells),
            positions: Vec::with_capacity(cells),
            lengths,
        };
        for (at, &i) in class.iter().enumerate() {
            let sequence = batch.sequence(i);
            padded.ids.extend_from_slice(sequence.ids);
            padded.segments.extend_from_slice(sequence.type_ids);
            padded.positions.extend(encoder.position_ids(sequence.ids));
            let end = (at + 1) * length;
            padded.ids.resize(end, encoder.pad_token_id);
            padded.segments.resize(end, 0);
            padded.positions.resize(end, 0);
        }
        padded
    }

    fn input(&self, input: &Input) -> ort::Result<SessionInputValue<'static>> {
        match input.role {
            Role::Ids => self.tensor(&self.ids, input.narrow),
            Role::Segments => self.tensor(&self.segments, input.narrow),
            Role::Positions => self.tensor(&self.positions, input.narrow),
            Role::Mask => {
                let row = |n: &usize| {
                    (0..self.length)
                        .map(|at| u32::from(at < *n))
                        .collect::<Vec<_>>()
                };
                let mask: Vec<u32> = self.lengths.iter().flat_map(row).collect();
                self.tensor(&mask, input.narrow)
            }
        }
    }

    fn tensor(&self, values: &[u32], narrow: bool) -> ort::Result<SessionInputValue<'static>> {
        let shape = [self.lengths.len(), self.length];
        if narrow {
            let values: Vec<i32> = values.iter().map(|v| v.cast_signed()).collect();
            return Ok(Tensor::from_array((shape, values))?.into());
        }
        let values: Vec<i64> = values.iter().map(|v| i64::from(*v)).collect();
        Ok(Tensor::from_array((shape, values))?.into())
    }
}

/// An output as rows of tokens of sequences, shape `(batch, length, width)`; `length` is 1 for pooled ones.
struct Rows<'a> {
    data: &'a [f32],
    length: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    fn of(outputs: &'a SessionOutputs<'_>, name: &str) -> Result<Self, BackendError> {
        let missing = || {
            BackendError::inference(
                "the model gave too few outputs",
                format!("\"{name}\" is missing"),
            )
        };
        let value = outputs.get(name).ok_or_else(missing)?;
        let (shape, data) = value
            .try_extract_tensor::<f32>()
            .map_err(|e| BackendError::inference("an output cannot be read", e))?;
        let dims: Vec<usize> = shape
            .iter()
            .map(|dim| usize::try_from(*dim).unwrap_or(0))
            .collect();
        // (batch, length, width), or (batch, width) of pooled vectors, or (batch, length) of weights: the two flat ones
        // read the same, since `get` takes a run of rows by its own width.
        let (length, width) = match dims[..] {
            [_, length, width] => (length, width),
            [_, width] => (1, width),
            _ => (0, 0),
        };
        Ok(Self {
            data,
            length,
            width,
        })
    }

    /// `n` rows of `width` of one sequence, from row `first` on.
    fn get(
        &self,
        sequence: usize,
        first: usize,
        n: usize,
        width: usize,
    ) -> Result<&'a [f32], BackendError> {
        let per_sequence = self.length * self.width;
        let start = sequence * per_sequence + first * width;
        let within = (first + n) * width <= per_sequence;
        self.data
            .get(start..start + n * width)
            .filter(|_| within)
            .ok_or_else(|| {
                let shape = format!("(batch, {}, {})", self.length, self.width);
                BackendError::inference(
                    "an output has another shape than expected",
                    format!("{shape} instead of {n} x {width}"),
                )
            })
    }
}
