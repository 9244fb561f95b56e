//! Writes the model, and gives it its place where the check is passed.

mod comparison;
mod partial;
mod verify;

use std::{io, path::Path, time::Instant};

use embedgate_config::{Config, Environment, LogLevel, ModelConfig};
use embedgate_core::{Head, Outputs, Precision};
use embedgate_onnx::convert::{self, ConvertError, Files, Parts, Target, Variant};
use embedgate_weights::Weights;

use self::{partial::Partial, verify::Verification};
use super::super::{Failure, start_log};
use crate::{
    args::convert::{ConvertArgs, OnnxTarget},
    model::{
        load::{self, Plan},
        load_context::LoadContext,
    },
};

pub(in crate::commands) fn run(
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
    let context = LoadContext::new(&of_gateway, environment);
    // Without it the result could not be checked: better said now than after gigabytes.
    embedgate_onnx::runtime::load(&context.onnx_libraries().runtime).map_err(anyhow::Error::new)?;
    let partial = Partial::create(&output)?;
    let heads = write(&plan, &partial.0, files, variant)?;
    match variant.target {
        Target::CudaPacked => tracing::warn!(
            "the model is not checked: its operators have no implementation for the processor"
        ),
        Target::Cpu | Target::Gpu => {
            let file = partial.0.join(files.model);
            let verification = Verification {
                plan: &plan,
                config: &config,
                context: &context,
            };
            verification.of(&file, precision, heads)?;
        }
    }
    partial.publish(&output, files)?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(seconds, "wrote {} in {seconds:.1} s", model.display());
    Ok(())
}

/// Writes the encoder and the heads of a model, and returns the heads.
fn write(plan: &Plan, folder: &Path, files: Files, variant: Variant) -> anyhow::Result<Outputs> {
    plan.folder.check_description()?;
    if plan.folder.splade.is_some() {
        anyhow::bail!(
            "no ONNX model is written of SPLADE models yet: type = \"cpu\" runs their own weights"
        );
    }
    let weights = Weights::of_encoder(&plan.folder)?;
    let encoder = &plan.folder.encoder;
    let heads = match plan.folder.is_cross_encoder {
        true => Outputs::SCORE,
        false => Outputs::default()
            .with_if(weights.has("sparse_linear.weight"), Head::Sparse)
            .with_if(weights.has("colbert_linear.weight"), Head::MultiVector),
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
    convert::write(folder, variant, Parts { encoder, heads }, &mut read)?;
    Ok(heads)
}

fn target(target: OnnxTarget) -> Target {
    match target {
        OnnxTarget::Cpu => Target::Cpu,
        OnnxTarget::Gpu => Target::Gpu,
        OnnxTarget::CudaPacked => Target::CudaPacked,
    }
}
