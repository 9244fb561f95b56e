//! `embedgate convert`: writes an ONNX model from a model's own weights, and checks it against candle before it counts.

#[cfg(not(all(feature = "candle", feature = "onnx")))]
pub(super) fn run(
    _: &crate::args::ConvertArgs,
    _: &crate::config::Environment,
) -> Result<(), super::Failure> {
    Err(anyhow::anyhow!("convert needs the cargo features candle and onnx").into())
}

#[cfg(all(feature = "candle", feature = "onnx"))]
pub(super) use supported::run;

#[cfg(all(feature = "candle", feature = "onnx"))]
mod supported {
    use std::{
        fs, io,
        path::{Path, PathBuf},
        time::Instant,
    };

    use anyhow::{Context, bail};
    use embedgate_candle::weights::Weights;
    use embedgate_core::{Backend, EmbeddingBatch, TokenBatch};
    use embedgate_onnx::convert::{self, ConvertError, DATA_FILE, Heads, MODEL_FILE};

    use super::super::{Failure, start_log};
    use crate::{
        args::ConvertArgs,
        config::{BackendConfig, BackendType, Config, Environment, LogLevel, ModelConfig},
        model::{
            engine,
            load::{self, Plan, Surroundings},
        },
    };

    /// What the written model is tried on: scripts, code, an empty text, and lengths that make padding.
    const TEXTS: [&str; 5] = [
        "The quick brown fox jumps over the lazy dog.",
        "向量检索",
        "",
        "fn main() { println!(\"{}\", 6 * 7); }",
        "A longer text, so that the others of its batch are padded to its length: one two three four five six seven eight \
         nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one.",
    ];
    /// The largest difference allowed between the two, relative to the largest number of a vector.
    const TOLERANCE: f32 = 1e-4;

    pub(in super::super) fn run(
        args: &ConvertArgs,
        environment: &Environment,
    ) -> Result<(), Failure> {
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
        if output.join(MODEL_FILE).exists() && !args.force {
            let there = output.join(MODEL_FILE);
            return Err(anyhow::anyhow!(
                "{} is there already: use --force to replace it",
                there.display()
            )
            .into());
        }
        let surroundings = Surroundings::new(&Config::default(), environment);
        // Without it the result could not be checked: better said now than after gigabytes.
        embedgate_onnx::runtime::load(&surroundings.onnxruntime()).map_err(anyhow::Error::new)?;
        let partial = Partial::create(&output)?;
        write(&plan, &partial.0)?;
        verify(&plan, &config, &partial.0, &surroundings)?;
        partial.publish(&output)?;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(
            seconds,
            "wrote {} in {seconds:.1} s",
            output.join(MODEL_FILE).display()
        );
        Ok(())
    }

    fn write(plan: &Plan, folder: &Path) -> anyhow::Result<()> {
        let weights = Weights::open(&plan.folder.path)?;
        let heads = Heads {
            sparse: weights.has("sparse_linear.weight"),
            multi_vector: weights.has("colbert_linear.weight"),
            score: plan.folder.is_cross_encoder,
        };
        let mut read =
            |name: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> io::Result<()>| {
                let used = weights.with_values(name, shape, |values| use_them(values));
                let written = used.map_err(|e| ConvertError::Weights(Box::new(e)))?;
                written.map_err(|source| ConvertError::Write {
                    path: folder.join(DATA_FILE),
                    source,
                })
            };
        Ok(convert::write(
            folder,
            &plan.folder.encoder,
            heads,
            &mut read,
        )?)
    }

    /// Runs both variants on a few texts and compares every output; the file counts only if they agree.
    fn verify(
        plan: &Plan,
        config: &ModelConfig,
        folder: &Path,
        surroundings: &Surroundings,
    ) -> anyhow::Result<()> {
        tracing::info!("checking the ONNX model against candle");
        let tokenizer = load::tokenizer(plan)?;
        let mut batch = TokenBatch::new();
        for text in TEXTS {
            let ids = tokenizer.encode(text).map_err(anyhow::Error::msg)?.ids;
            let n_segments = plan.folder.encoder.type_vocabulary_size;
            batch.push_pair(&ids, &segments(ids.len(), n_segments));
        }
        let embed = |kind: BackendType, file: Option<PathBuf>| -> anyhow::Result<EmbeddingBatch> {
            let config = ModelConfig {
                backend: BackendConfig {
                    kind,
                    file,
                    ..BackendConfig::default()
                },
                ..config.clone()
            };
            let mut backend: Box<dyn Backend> =
                engine::open(plan, &config, &tokenizer, surroundings)?;
            let outputs = backend.info().outputs;
            Ok(backend.embed(&batch, outputs)?)
        };
        let expected = embed(BackendType::Candle, None)?;
        let got = embed(BackendType::Onnx, Some(folder.join(MODEL_FILE)))?;
        let difference =
            difference(&expected, &got).context("the ONNX model has other outputs than candle")?;
        if difference.is_nan() || difference > TOLERANCE {
            bail!(
                "the ONNX model differs from candle by {difference:e}, allowed is {TOLERANCE:e}: nothing was written"
            );
        }
        tracing::info!(difference, "both agree within {difference:.1e}");
        Ok(())
    }

    /// The second half of a sequence is in another segment, where the model has more than one.
    fn segments(length: usize, n_segments: usize) -> Vec<u32> {
        let second = |at| n_segments > 1 && at >= length / 2;
        (0..length).map(|at| u32::from(second(at))).collect()
    }

    /// The largest difference of a number, relative to the largest of its vector. None when the shapes differ.
    fn difference(expected: &EmbeddingBatch, got: &EmbeddingBatch) -> Option<f32> {
        let mut worst = 0.0_f32;
        for (expected, got) in rows(expected).into_iter().zip(rows(got)) {
            if expected.len() != got.len() {
                return None;
            }
            let scale = expected
                .iter()
                .fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
            let far = expected
                .iter()
                .zip(&got)
                .map(|(a, b)| (a - b).abs() / scale);
            worst = far.fold(
                worst,
                |worst, far| if far.is_nan() { far } else { worst.max(far) },
            );
        }
        (rows(expected).len() == rows(got).len()).then_some(worst)
    }

    /// All scores are one row: a score alone has no vector whose scale it shares.
    fn rows(batch: &EmbeddingBatch) -> Vec<Vec<f32>> {
        let dense = batch
            .dense
            .iter()
            .flat_map(|dense| (0..dense.rows()).map(|i| dense.row(i).to_vec()));
        let sparse = batch
            .sparse
            .iter()
            .flatten()
            .map(|vector| vector.values.clone());
        let multi = batch
            .multi_vector
            .iter()
            .flatten()
            .map(|matrix| matrix.data.clone());
        let scores = batch.scores.iter().cloned();
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
        fn publish(&self, output: &Path) -> anyhow::Result<()> {
            fs::create_dir_all(output).with_context(|| output.display().to_string())?;
            let (model, data) = (output.join(MODEL_FILE), output.join(DATA_FILE));
            match fs::remove_file(&model) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| model.display().to_string());
                }
                _ => {}
            }
            fs::rename(self.0.join(DATA_FILE), &data)
                .with_context(|| data.display().to_string())?;
            fs::rename(self.0.join(MODEL_FILE), &model)
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
