//! Prints what would be served of a model's folder: by which backend, from which files, and which files are left aside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use embedgate_config::{Config, ConfigError, Environment, LogLevel};
use embedgate_core::{ModelFolder, Precision, vector_module::VectorModule};
use toml::Table;

use super::super::{Failure, literal, say, start_log};
use crate::model::{
    load::{self, Inspected, Plan},
    load_context::LoadContext,
};

/// The name of the model in the configuration that is made of the folder.
const NAME: &str = "model";

/// Prints a line for each thing that the folder says, as it would be obeyed.
pub(super) fn run(folder: &Path, environment: &Environment) -> Result<(), Failure> {
    let config = config(folder, environment)?;
    start_log(LogLevel::Warn);
    let context = LoadContext::new(&config, environment);
    let inspected = load::inspect(NAME, &config.models[NAME], &context).map_err(|error| {
        Failure::Config(anyhow!("{} cannot be served: {error}", folder.display()))
    })?;
    let mut lines = vec![format!("{} can be served", folder.display())];
    for (label, text) in facts(&inspected) {
        lines.push(format!("  {label:<12} {text}"));
    }
    lines.extend(left_aside(&inspected));
    Ok(say(&lines.join("\n"))?)
}

/// A configuration of the folder alone.
fn config(folder: &Path, environment: &Environment) -> Result<Config, Failure> {
    let path = literal(&folder.display().to_string());
    let model = Table::from_iter([("path".into(), path.into())]);
    let table = Table::from_iter([
        (
            "auth".into(),
            Table::from_iter([("mode".into(), "none".into())]).into(),
        ),
        (
            "models".into(),
            Table::from_iter([(NAME.into(), model.into())]).into(),
        ),
    ]);
    let parsed = Config::parse(&table.to_string(), Path::new(""), environment);
    let problem = |problems| ConfigError {
        file: None,
        problems,
    };
    Ok(parsed.map_err(problem)?)
}

fn facts(inspected: &Inspected) -> Vec<(&'static str, String)> {
    let Inspected {
        model,
        plan,
        tokenizer,
    } = inspected;
    let (folder, backend) = (&plan.folder, &model.backend);
    let encoder = &folder.encoder;
    let mut facts = vec![
        (
            "family",
            match (&folder.static_embedding, encoder.layers.len()) {
                (Some(embedding), _) => format!(
                    "static: a {} for each of {} tokens, and no encoder",
                    if embedding.is_sparse() {
                        "weight"
                    } else {
                        "vector"
                    },
                    embedding.rows
                ),
                (None, 0) => format!("{}, from its ONNX file alone", encoder.model_type),
                (None, n) => format!(
                    "{}: {n} layers of width {}, {} tokens in the vocabulary",
                    encoder.model_type,
                    encoder.hidden_size,
                    encoder.vocabulary_size()
                ),
            },
        ),
        (
            "runs with",
            format!(
                "type = \"{}\" on {}, in {}",
                backend.engine.kind(),
                backend.device,
                match folder.static_embedding {
                    Some(_) => Precision::F32,
                    None => backend.precision,
                }
            ),
        ),
    ];
    if folder.is_cross_encoder {
        facts.push(("gives", "scores of pairs of texts: it is a reranker".into()));
        if let Some(template) = &plan.template {
            facts.push(("pairs", format!("{:?}", template.example())));
        }
    } else if folder.is_sparse_alone() {
        let weights = "sparse weights over the vocabulary, by outputs = [\"sparse\"]";
        facts.push(("gives", weights.into()));
    } else {
        facts.extend(vectors(plan));
    }
    facts.push((
        "texts",
        format!(
            "{} tokens at most; a longer text is cut on the {}",
            plan.max_tokens,
            format!("{:?}", tokenizer.side()).to_lowercase()
        ),
    ));
    facts.push(("prompts", prompts(plan)));
    if let Some(adapters) = &encoder.adapters {
        let names = adapters.tasks.join(", ");
        let text = format!("{names}; none is applied: choose one with the model's key adapter");
        facts.push(("adapters", text));
    }
    if !folder.routes.is_empty() {
        let names = folder.routes.join(", ");
        let text =
            format!("{names}; this is the default one, the model's key route chooses another");
        facts.push(("routes", text));
    }
    facts
}

/// The facts of a model that gives vectors.
fn vectors(plan: &Plan) -> Vec<(&'static str, String)> {
    let folder = &plan.folder;
    let length = if plan.normalize { ", of length 1" } else { "" };
    let source = match folder.pooling {
        Some(_) => "as the folder says",
        None => "the folder does not say how: the model's key \"pooling\" does",
    };
    let mut facts = vec![
        (
            "gives",
            format!("vectors of {} numbers{length}", plan.dimensions),
        ),
        ("pooling", format!("{} ({source})", plan.pooling)),
    ];
    if folder.has_m3_heads {
        facts.push((
            "also gives",
            "sparse and ColBERT vectors, as bge-m3 does".into(),
        ));
    }
    let modules: Vec<String> = folder.vector_modules.iter().map(module).collect();
    if !modules.is_empty() {
        facts.push(("modules", modules.join(", then ")));
    }
    facts
}

fn module(module: &VectorModule) -> String {
    match module {
        VectorModule::Dense(dense) => {
            format!(
                "Dense from {} to {}",
                dense.linear.inner,
                dense.linear.outer()
            )
        }
        VectorModule::Norm { norm, .. } => format!("LayerNorm of {}", norm.width),
        VectorModule::Normalize => "Normalize".into(),
        VectorModule::Truncate(n) => format!("cut to {n} numbers"),
    }
}

fn prompts(plan: &Plan) -> String {
    let named = plan.prompts.by_name.iter();
    let named: Vec<String> = named
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| format!("{name} = {text:?}"))
        .collect();
    let usual = match plan.prompts.default.is_empty() {
        true => "none where a request names none".to_owned(),
        false => format!("{:?} where a request names none", plan.prompts.default),
    };
    match named.is_empty() {
        true => usual,
        false => format!("{}; {usual}", named.join(", ")),
    }
}

/// The files of the folder that are not read, each with the reason.
fn left_aside(inspected: &Inspected) -> Vec<String> {
    let folder = &inspected.plan.folder;
    let backend = &inspected.model.backend;
    let reads = backend.engine.reads(&folder.path, backend);
    let mut lines = Vec::new();
    for path in files(&folder.path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(reason) = reason(&path, &name, folder, &reads) {
            let shown = path.strip_prefix(&folder.path).unwrap_or(&path);
            lines.push(format!("    {}: {reason}", shown.display()));
        }
    }
    if !lines.is_empty() {
        lines.insert(0, "  not read".into());
    }
    lines
}

/// The reason why a file is not read; none for one that is.
fn reason(
    path: &Path,
    name: &str,
    folder: &ModelFolder,
    reads: &dyn Fn(&str) -> bool,
) -> Option<&'static str> {
    let encoder = &folder.encoder_path;
    let is_in_modules = folder.folders().iter().any(|of| path.parent() == Some(of));
    let is_pooling = path.parent() == folder.pooling_folder.as_deref();
    let is_weights =
        |name: &str| name.ends_with(".safetensors") || name.starts_with("pytorch_model");
    if name.ends_with(".onnx") || name.contains(".onnx_data") {
        return (!reads(name)).then_some("an ONNX model: type = \"onnx\" runs it");
    }
    if path.extension().is_some_and(|ending| ending == "md") || name.starts_with('.') {
        return Some("for people, or of a hub");
    }
    if !is_in_modules && !is_pooling {
        return Some("nothing of this folder is read");
    }
    let has_safetensors = encoder.join("model.safetensors").exists()
        || encoder.join("model.safetensors.index.json").exists();
    if name.starts_with("pytorch_model") && has_safetensors && path.parent() == Some(encoder) {
        return Some("model.safetensors has the same weights");
    }
    if is_weights(name) && !reads(name) {
        return Some("weights of another backend");
    }
    let known = [
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "added_tokens.json",
        "special_tokens_map.json",
        "embedgate.lock.json",
    ];
    let is_vocabulary =
        ["vocab.txt", "vocab.json", "merges.txt"].contains(&name) || name.ends_with(".model");
    let has_tokenizer = encoder.join("tokenizer.json").exists();
    let is_template = name == "chat_template.jinja" && folder.chat_template.is_some();
    let is_known = known.contains(&name)
        || (is_vocabulary && !has_tokenizer)
        || is_template
        || name.starts_with("tokenizer")
        || name.starts_with("sentence_")
        || name.ends_with(".pt")
        || is_weights(name)
        || name.starts_with("model.safetensors");
    (!is_known).then_some(match name {
        "chat_template.jinja" => "texts of this model go through no template",
        _ => "nothing of it is needed: tokenizer.json has the vocabulary",
    })
}

/// The files of a folder and of those within, sorted; links are followed one step.
fn files(folder: &Path) -> Vec<PathBuf> {
    let within = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut all = within(folder);
    let below: Vec<PathBuf> = all
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|path| within(path))
        .collect();
    all.extend(below);
    all.retain(|path| path.is_file());
    all.sort();
    all
}
