//! `embedgate convert`: writes an ONNX model from a model's own weights, and checks it against another backend before it counts.

#[cfg(not(all(any(feature = "candle", feature = "cpu"), feature = "onnx")))]
pub(super) fn run(
    _: Option<&std::path::Path>,
    _: &crate::args::ConvertArgs,
    _: &embedgate_config::Environment,
) -> Result<(), super::Failure> {
    Err(anyhow::anyhow!("convert needs the cargo feature onnx, and candle or cpu").into())
}

#[cfg(all(any(feature = "candle", feature = "cpu"), feature = "onnx"))]
pub(super) use supported::run;
#[cfg(all(any(feature = "candle", feature = "cpu"), feature = "onnx"))]
mod supported {
    use std::{
        fs, io,
        path::{Path, PathBuf},
        time::Instant,
    };

    use anyhow::{Context, bail};
    use embedgate_config::{
        BackendConfig, BackendType, Config, Environment, LogLevel, ModelConfig,
    };
    use embedgate_core::{Backend, EmbeddingBatch, Precision, TokenBatch};
    use embedgate_onnx::convert::{self, ConvertError, Files, Heads, Target, Variant};
    use embedgate_weights::Weights;

    use super::super::{Failure, start_log};
    use crate::{
        args::{ConvertArgs, OnnxTarget},
        model::{
            engine,
            load::{self, Plan},
            surroundings::Surroundings,
        },
    };

    /// The backend that the written model is compared with.
    #[cfg(feature = "candle")]
    const REFERENCE: (BackendType, &str) = (BackendType::Candle, "candle");
    #[cfg(not(feature = "candle"))]
    const REFERENCE: (BackendType, &str) = (BackendType::Cpu, "the cpu backend");

    /// The texts that the written model is tried on: scripts, code, an empty text, and lengths that make padding.
    const TEXTS: [&str; 5] = [
        "The quick brown fox jumps over the lazy dog.",
        "向量检索",
        "",
        "fn main() { println!(\"{}\", 6 * 7); }",
        "A longer text, so that the others of its batch are padded to its length: one two three four five six seven eight \
         nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one.",
    ];
    /// The largest difference allowed in f32, relative to the largest number of a vector.
    const TOLERANCE: f32 = 1e-4;
    /// The least cosine allowed in int8, whose numbers are rounded: all-MiniLM-L6-v2 has 0.998, random weights 0.988.
    const LEAST_COSINE: f32 = 0.95;
    /// The least cosine allowed in f16.
    const LEAST_COSINE_F16: f32 = 0.9999;

    pub(in super::super) fn run(
        config: Option<&Path>,
        args: &ConvertArgs,
        environment: &Environment,
    ) -> Result<(), Failure> {
        // It may say where ONNX Runtime is. A model's folder needs none.
        let of_gateway = match config {
            Some(file) => Config::load_for_a_command(Some(file), environment)?,
            None => Config::default(),
        };
        start_log(LogLevel::Info);
        let started = Instant::now();
        let config = ModelConfig {
            path: args.folder.clone(),
            ..ModelConfig::default()
        };
        let plan = load::plan(&config)?;
        let output = args
            .output
            .clone()
            .unwrap_or_else(|| args.folder.join("onnx"));
        let precision = Precision::from(args.precision);
        let variant = Variant {
            target: target(args.target),
            precision,
        };
        let files = Files::of(variant).ok_or(ConvertError::Variant(variant));
        let files = files.map_err(anyhow::Error::new)?;
        let model = output.join(files.model);
        if model.exists() && !args.force {
            return Err(anyhow::anyhow!(
                "{} is there already: use --force to replace it",
                model.display()
            )
            .into());
        }
        let surroundings = Surroundings::new(&of_gateway, environment);
        // Without it the result could not be checked: better said now than after gigabytes.
        embedgate_onnx::runtime::load(&surroundings.onnx_libraries().runtime)
            .map_err(anyhow::Error::new)?;
        let partial = Partial::create(&output)?;
        write(&plan, &partial.0, files, variant)?;
        match variant.target {
            Target::CudaPacked => tracing::warn!(
                "the model is not checked: its operators have no implementation for the processor"
            ),
            Target::Cpu | Target::Gpu => {
                let file = partial.0.join(files.model);
                verify(&plan, &config, &file, precision, &surroundings)?;
            }
        }
        partial.publish(&output, files)?;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(seconds, "wrote {} in {seconds:.1} s", model.display());
        Ok(())
    }

    fn write(plan: &Plan, folder: &Path, files: Files, variant: Variant) -> anyhow::Result<()> {
        let weights = Weights::open(&plan.folder.path)?;
        let heads = Heads {
            sparse: weights.has("sparse_linear.weight"),
            multi_vector: weights.has("colbert_linear.weight"),
            score: plan.folder.is_cross_encoder,
        };
        let mut read =
            |name: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> io::Result<()>| {
                let values = weights.values(name, shape);
                let values = values.map_err(|e| ConvertError::Weights(Box::new(e)))?;
                use_them(&values).map_err(|source| ConvertError::Write {
                    path: folder.join(files.data),
                    source,
                })
            };
        Ok(convert::write(
            folder,
            &plan.folder.encoder,
            heads,
            variant,
            &mut read,
        )?)
    }

    fn target(target: OnnxTarget) -> Target {
        match target {
            OnnxTarget::Cpu => Target::Cpu,
            OnnxTarget::Gpu => Target::Gpu,
            OnnxTarget::CudaPacked => Target::CudaPacked,
        }
    }

    /// Runs both variants on a few texts and compares every output; the file counts only if they agree.
    fn verify(
        plan: &Plan,
        config: &ModelConfig,
        file: &Path,
        precision: Precision,
        surroundings: &Surroundings,
    ) -> anyhow::Result<()> {
        tracing::info!("checking the ONNX model against {}", REFERENCE.1);
        let tokenizer = load::tokenizer(plan)?;
        let mut batch = TokenBatch::new();
        for text in TEXTS {
            let ids = tokenizer.encode(text).map_err(anyhow::Error::msg)?.ids;
            let n_segments = plan.folder.encoder.type_vocabulary_size;
            batch.push_pair(&ids, &segments(ids.len(), n_segments));
        }
        let embed = |backend: BackendConfig| -> anyhow::Result<EmbeddingBatch> {
            let config = ModelConfig {
                backend,
                ..config.clone()
            };
            let mut backend: Box<dyn Backend> =
                engine::open(plan, &config, &tokenizer, surroundings)?;
            let outputs = backend.info().outputs;
            Ok(backend.embed(&batch, outputs)?)
        };
        let expected = embed(BackendConfig {
            kind: REFERENCE.0,
            ..BackendConfig::default()
        })?;
        let got = embed(BackendConfig {
            kind: BackendType::Onnx,
            precision: precision.into(),
            file: Some(file.to_owned()),
            ..BackendConfig::default()
        })?;
        let n_ids = plan.folder.encoder.vocabulary_size;
        compare(
            &rows(&expected, n_ids, precision),
            &rows(&got, n_ids, precision),
            precision,
        )
    }

    /// Fails unless all vectors agree as well as they do in this precision.
    fn compare(
        expected: &[Vec<f32>],
        got: &[Vec<f32>],
        precision: Precision,
    ) -> anyhow::Result<()> {
        let reference = REFERENCE.1;
        let widths = |rows: &[Vec<f32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
        if widths(expected) != widths(got) {
            bail!("the ONNX model has other outputs than {reference}: nothing was written");
        }
        let pairs = || expected.iter().zip(got);
        if precision == Precision::F32 {
            let difference = worst(pairs().map(|(a, b)| difference(a, b)), f32::max);
            if difference.is_nan() || difference > TOLERANCE {
                bail!(
                    "the ONNX model differs from {reference} by {difference:e}, allowed is {TOLERANCE:e}: nothing was written"
                );
            }
            tracing::info!(difference, "both agree within {difference:.1e}");
        } else {
            let least = match precision {
                Precision::F16 => LEAST_COSINE_F16,
                _ => LEAST_COSINE,
            };
            let cosine = worst(pairs().map(|(a, b)| cosine(a, b)), f32::min);
            if cosine.is_nan() || cosine < least {
                bail!(
                    "vectors of the ONNX model have cosines down to {cosine} with those of {reference}, allowed is {least}: \
                     nothing was written"
                );
            }
            tracing::info!(cosine, "both agree, with cosines of {cosine:.5} and more");
        }
        Ok(())
    }

    /// The worst of some numbers; NaN, if one is.
    fn worst(numbers: impl Iterator<Item = f32>, worse: fn(f32, f32) -> f32) -> f32 {
        let either = |a: f32, b: f32| {
            if a.is_nan() || b.is_nan() {
                f32::NAN
            } else {
                worse(a, b)
            }
        };
        numbers.reduce(either).unwrap_or(f32::NAN)
    }

    /// The cosine of two vectors; 1 if both are empty or zeros.
    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths == 0.0 {
            return if dot(a, a) == dot(b, b) { 1.0 } else { 0.0 };
        }
        dot(a, b) / lengths
    }

    /// The second half of a sequence is in another segment, where the model has more than one.
    fn segments(length: usize, n_segments: usize) -> Vec<u32> {
        let second = |at| n_segments > 1 && at >= length / 2;
        (0..length).map(|at| u32::from(second(at))).collect()
    }

    /// The largest difference of a number, relative to the largest of both vectors.
    fn difference(a: &[f32], b: &[f32]) -> f32 {
        let amounts = a.iter().chain(b).map(|x| x.abs());
        let largest = amounts.fold(f32::MIN_POSITIVE, f32::max);
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest);
        worst(far.chain([0.0]), f32::max)
    }

    /// Vectors of every output. All sparse ones are one row, written out, since a weight about zero may be there or not; so
    /// are all scores, in int8 less their mean: they tell texts apart by their differences.
    fn rows(batch: &EmbeddingBatch, n_ids: usize, precision: Precision) -> Vec<Vec<f32>> {
        let dense = batch
            .dense
            .iter()
            .flat_map(|dense| (0..dense.rows()).map(|i| dense.row(i).to_vec()));
        let sparse = batch.sparse.iter().map(|vectors| {
            let mut row = vec![0.0; n_ids * vectors.len()];
            for (vector, row) in vectors.iter().zip(row.chunks_exact_mut(n_ids)) {
                for (id, weight) in vector.indices.iter().zip(&vector.values) {
                    row[*id as usize] = *weight;
                }
            }
            row
        });
        let multi = batch
            .multi_vector
            .iter()
            .flatten()
            .map(|matrix| matrix.data.clone());
        let scores = batch.scores.iter().map(|scores| {
            let mean = match precision {
                Precision::F32 => 0.0,
                _ => scores.iter().sum::<f32>() / scores.len() as f32,
            };
            scores.iter().map(|score| score - mean).collect()
        });
        dense.chain(sparse).chain(multi).chain(scores).collect()
    }

    /// A folder beside the output, in which the model is written and checked; removed unless published.
    struct Partial(PathBuf);

    impl Partial {
        fn create(output: &Path) -> anyhow::Result<Self> {
            let parent = output
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let name = format!(".embedgate-convert-{}", std::process::id());
            let path = parent.join(name);
            fs::create_dir(&path)
                .with_context(|| format!("cannot write beside {}", output.display()))?;
            Ok(Self(path))
        }

        /// Moves both files into place. At no time does a model file stand beside another model's data.
        fn publish(&self, output: &Path, files: Files) -> anyhow::Result<()> {
            fs::create_dir_all(output).with_context(|| output.display().to_string())?;
            let (model, data) = (output.join(files.model), output.join(files.data));
            match fs::remove_file(&model) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| model.display().to_string());
                }
                _ => {}
            }
            fs::rename(self.0.join(files.data), &data)
                .with_context(|| data.display().to_string())?;
            fs::rename(self.0.join(files.model), &model)
                .with_context(|| model.display().to_string())?;
            Ok(())
        }
    }

    impl Drop for Partial {
        fn drop(&mut self) {
            if let Err(error) = fs::remove_dir_all(&self.0) {
                tracing::warn!(error = %error, "cannot remove {}", self.0.display());
            }
        }
    }
}
