//! The backend: one session of ONNX Runtime, and the padding and pooling around it.

use std::path::{Path, PathBuf};

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, EncoderConfig, Layout, Matrix, ModelFolder,
    Outputs, Pooling, Precision, SparseVector, TokenBatch, classes::length_classes,
    library::Candidates,
};
use ort::{
    session::{Session, SessionInputValue, SessionOutputs, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType},
};

use crate::{
    file::{check_file, model_file},
    padded::{Expected, Padded, Rows},
    runtime,
    wiring::{Dense, Element, Port, Wiring},
};

/// What is chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model file; none means to look in the model folder.
    pub file: Option<PathBuf>,
    /// Which of the folder's models, f32 or int8; a model that states its precision must be in it.
    pub precision: Precision,
    /// Where ONNX Runtime's library may be.
    pub library: Candidates,
    /// How token vectors become the dense vector, where the model leaves that open; a cross-encoder has none.
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
    model: Model,
    session: Session,
}

/// What is known of the model beside its session.
struct Model {
    info: BackendInfo,
    pooling: Pooling,
    special_token_ids: Vec<u32>,
    encoder: EncoderConfig,
    wiring: Wiring,
}

impl OnnxBackend {
    /// Checks the model's references to other files, loads it and finds out what it takes and gives.
    ///
    /// # Errors
    /// [`BackendError::MissingLibrary`] when there is no ONNX Runtime; [`BackendError::Load`] names the file and what is
    /// wrong with it.
    pub fn load(folder: &ModelFolder, options: Options) -> Result<Self, BackendError> {
        Self::load_for(bytes_overflow(), folder, options)
    }

    /// The same for processors on which products of bytes overflow, or do not.
    fn load_for(
        bytes_overflow: bool,
        folder: &ModelFolder,
        options: Options,
    ) -> Result<Self, BackendError> {
        let environment = runtime::environment(&options.library)?;
        let file = model_file(folder, options.file.as_deref(), options.precision)?;
        check_file(&file, options.precision)?;
        let load_error =
            |problem: String| BackendError::Load(format!("{}: {problem}", file.display()));
        let session = open_session(environment, &file, options.threads, bytes_overflow)
            .map_err(|e| load_error(e.to_string()))?;
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
            device: "cpu".into(),
            precision: options.precision,
            dimensions: dimensions(&session, &wiring, folder),
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
        Ok(Self { model, session })
    }

    /// Runs sequences of like length in one padded call and writes their rows into `results`.
    fn run_class(
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
        let outputs = self
            .session
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

fn open_session(
    environment: &ort::environment::Environment,
    file: &Path,
    threads: usize,
    bytes_overflow: bool,
) -> ort::Result<Session> {
    let mut builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // Spinning threads take 30 to 40 % of a short query's time from the rest of the server.
        .with_intra_op_spinning(false)?
        // Lengths vary from call to call: a plan of memory for each would be kept for ever.
        .with_memory_pattern(false)?;
    if bytes_overflow {
        // kOrtSessionOptionsAvx2PrecisionMode: weights become unsigned, which is slower and cannot overflow.
        builder = builder.with_config_entry("session.x64quantprecision", "1")?;
    }
    builder.commit_from_file(file)
}

/// Whether this processor has only instructions that add two products of an unsigned and a signed byte in 16 bits, and clamp
/// a sum that does not fit.
#[cfg(target_arch = "x86_64")]
fn bytes_overflow() -> bool {
    !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
}

/// Other processors add in 32 bits.
#[cfg(not(target_arch = "x86_64"))]
fn bytes_overflow() -> bool {
    false
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

#[cfg(test)]
mod tests {
    use embedgate_core::library::Candidates;

    use super::*;
    use crate::convert::{self, ConvertError, Files, Heads};

    /// Pseudo-random numbers as the weights of the tiny bge-m3, converted to int8.
    fn convert_random(folder: &ModelFolder, to: &Path) -> PathBuf {
        let mut state = 1_u32;
        let mut read =
            |_: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> std::io::Result<()>| {
                let mut next = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                };
                let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
                use_them(&values).map_err(|e| ConvertError::Weights(e.into()))
            };
        let precision = Precision::Int8;
        convert::write(to, &folder.encoder, Heads::default(), precision, &mut read).unwrap();
        to.join(Files::of(precision).unwrap().model)
    }

    /// Bytes without a sign, which processors without VNNI get, stand for the same numbers.
    #[test]
    fn int8_is_the_same_where_bytes_overflow() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = ModelFolder::open(&root.join("tests/fixtures/tiny-bge-m3")).unwrap();
        let written = tempfile::tempdir().unwrap();
        let options = Options {
            file: Some(convert_random(&folder, written.path())),
            precision: Precision::Int8,
            library: Candidates {
                named: Some(root.join(".embedgate/lib")),
                folders: Vec::new(),
            },
            pooling: Pooling::Cls,
            max_sequence_tokens: 64,
            special_token_ids: Vec::new(),
            threads: 1,
        };
        let batch: TokenBatch = [[5, 6, 7].as_slice(), &[9; 20]].into_iter().collect();
        let embed = |bytes_overflow| {
            let backend = OnnxBackend::load_for(bytes_overflow, &folder, options.clone());
            let dense = backend
                .unwrap()
                .embed(&batch, Outputs::DENSE)
                .unwrap()
                .dense;
            dense.unwrap()
        };
        let (signed, unsigned) = (embed(false), embed(true));
        for i in 0..2 {
            let largest = signed
                .row(i)
                .iter()
                .fold(0.0_f32, |all, x| all.max(x.abs()));
            assert!(largest > 0.0);
            for (a, b) in signed.row(i).iter().zip(unsigned.row(i)) {
                assert!((a - b).abs() <= largest / 50.0, "{a} {b}");
            }
        }
    }
}
