//! `embedgate bench-backend`: what a model's backend does without a gateway around it, how near that is to what the
//! processor or the card can do, and what each precision costs in accuracy.

mod accuracy;
mod speed;

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use anyhow::Context;
use embedgate_config::{
    BackendType, Config, Device, DeviceChoice, Environment, LogLevel, ModelConfig, PrecisionChoice,
};
use embedgate_core::{Backend, EncoderConfig, TokenBatch};
use embedgate_tools::{
    bench::{median, random_texts},
    table::Table,
};

use self::speed::{Ceiling, run as run_batch};
use super::{Failure, start_log};
use crate::{
    args::tools::BenchBackendArgs,
    model::{
        devices, engine,
        load::{self, Plan},
        surroundings::Surroundings,
        tokenizer::TextTokenizer,
    },
};

/// Batches of so many tokens at most are tried.
const BUDGETS: [usize; 6] = [64, 128, 256, 512, 1024, 2048];

/// A backend in one precision.
struct Engine {
    name: String,
    backend: Box<dyn Backend>,
    ceiling: Option<Ceiling>,
}

pub(super) fn run(
    config: Option<&Path>,
    args: &BenchBackendArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let config = Config::load_for_a_command(config, environment)?;
    let asked = args.model.as_deref().or(config.default_model());
    let model = asked.and_then(|name| config.models.get(name));
    let names = || {
        config
            .models
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let model =
        model.with_context(|| format!("no such model: choose one with --model: {}", names()))?;
    let batch = args.batch_tokens.unwrap_or(1);
    let numbers = [
        ("--rounds", args.rounds),
        ("--longest", args.longest),
        ("--batch-tokens", batch),
    ];
    for (flag, value) in numbers {
        if value == 0 {
            return Err(anyhow::anyhow!("{flag} must be at least 1").into());
        }
    }
    let texts = accuracy::texts(args.texts.as_deref())?;
    if texts.len() < 2 {
        return Err(anyhow::anyhow!("--texts must name a file of 2 lines at least").into());
    }
    if args.queries.is_some_and(|n| n == 0 || n >= texts.len()) {
        let message = format!("--queries must be 1 to {}", texts.len() - 1);
        return Err(anyhow::anyhow!(message).into());
    }
    let plan = load::plan(model)?;
    let tokenizer = load::tokenizer(&plan).map_err(anyhow::Error::from)?;
    let surroundings = Surroundings::new(&config, environment);
    let mut engines = Vec::new();
    for precision in precisions(model, args)? {
        let placed = placed(model, precision, args, &plan, &surroundings)?;
        engines.push(open(
            &placed,
            batch_tokens(model, args),
            &plan,
            &tokenizer,
            &surroundings,
        )?);
    }
    let mut out = io::stdout();
    let mut print =
        |what: &dyn std::fmt::Display| writeln!(out, "{what}").context("standard output");
    let threads = surroundings.threads(model);
    let info = engines[0].backend.info();
    let (backend, device) = (info.backend, info.device.clone());
    let on_card = device != "cpu";
    match on_card {
        true => print(&format!("backend {backend} on {device}\n"))?,
        false => print(&format!("backend {backend}, {threads} threads\n"))?,
    }
    if engines.iter().any(|engine| engine.ceiling.is_some()) {
        print(&ceilings(&engines))?;
    }
    print(&"tokens/s, medians, and the share of what the products alone would allow")?;
    let shapes = speed::Shapes {
        longest: args.longest.min(plan.max_tokens),
        batch_tokens: on_card.then(|| batch_tokens(model, args)),
        rounds: args.rounds,
        seed: args.seed,
    };
    let speeds = speed::measure(&mut engines, &plan.folder.encoder, &shapes)?;
    print(&speeds)?;
    if args.n > 0 {
        print(&random_load(&mut engines, &tokenizer, args)?)?;
    }
    if engines.len() > 1 && engines[0].backend.info().outputs.dense {
        let (n, first) = (texts.len(), &engines[0].name);
        print(&format!("{n} texts, dense vectors beside those of {first}"))?;
        let compared = accuracy::compare(&mut engines, &tokenizer, &texts, args.queries)?;
        print(&compared)?;
    }
    Ok(())
}

/// Tokens of a batch on a card.
fn batch_tokens(model: &ModelConfig, args: &BenchBackendArgs) -> usize {
    let asked = args.batch_tokens.or(model.max_batch_tokens);
    asked.unwrap_or(engine::CARD_TOKENS).max(1)
}

/// Returns the precisions that are asked for, f32 first, which the others are compared with; or the model's own.
fn precisions(
    model: &ModelConfig,
    args: &BenchBackendArgs,
) -> Result<Vec<PrecisionChoice>, Failure> {
    let mut asked = args.precision.clone();
    if asked.is_empty() {
        asked.push(model.backend.precision);
    } else if model.backend.device != DeviceChoice::At(Device::Cpu) {
        // What fits depends on the device.
    } else if model.backend.kind == BackendType::Candle {
        let message =
            "--precision is for models of the backends \"cpu\" and \"onnx\": candle has one";
        return Err(anyhow::anyhow!(message).into());
    } else if model.backend.kind == BackendType::Onnx {
        if model.backend.file.is_some() {
            let message =
                "--precision chooses among the ONNX models of a folder: leave out backend.file";
            return Err(anyhow::anyhow!(message).into());
        }
        if asked.contains(&PrecisionChoice::Bf16) {
            let message = "there are no ONNX models in bf16: --precision f32,int8 compares those that there are";
            return Err(anyhow::anyhow!(message).into());
        }
    }
    asked.sort_by_key(|precision| *precision != PrecisionChoice::F32);
    let mut once = Vec::new();
    for precision in asked {
        if !once.contains(&precision) {
            once.push(precision);
        }
    }
    Ok(once)
}

/// The model in this precision, on the first device that takes it.
fn placed(
    model: &ModelConfig,
    precision: PrecisionChoice,
    args: &BenchBackendArgs,
    plan: &Plan,
    surroundings: &Surroundings,
) -> Result<ModelConfig, Failure> {
    let mut model = model.clone();
    model.backend.precision = precision;
    match &mut model.backend.device {
        DeviceChoice::Auto(said) if !args.precision.is_empty() => *said = Some(precision),
        DeviceChoice::Auto(_) => {}
        DeviceChoice::At(device) => {
            let fits = devices::fitting(model.backend.kind, *device, Some(precision));
            fits.map_err(anyhow::Error::msg)?;
        }
    }
    if model.backend.device != DeviceChoice::At(Device::Cpu) {
        model.max_batch_tokens = Some(batch_tokens(&model, args));
    }
    Ok(load::place("of the benchmark", &model, plan, surroundings)?)
}

fn open(
    model: &ModelConfig,
    batch_tokens: usize,
    plan: &Plan,
    tokenizer: &TextTokenizer,
    surroundings: &Surroundings,
) -> Result<Engine, Failure> {
    let started = Instant::now();
    let backend = engine::open(plan, model, tokenizer, surroundings)?;
    let precision = backend.info().precision;
    tracing::debug!(%precision, seconds = started.elapsed().as_secs_f64(), "loaded");
    let ceiling = match model.backend.one_device() {
        Device::Cpu => ceiling(model, backend.as_ref(), surroundings)?,
        Device::Cuda(_) | Device::WebGpu => {
            ceiling_of_card(model, batch_tokens, &plan.folder.encoder, surroundings)?
        }
    };
    Ok(Engine {
        name: match backend.info().device.as_str() {
            "cpu" => precision.to_string(),
            device => format!("{precision} on {device}"),
        },
        ceiling,
        backend,
    })
}

/// The fastest product of embedgate's own kernels, of the model's shapes.
#[cfg(feature = "cuda")]
fn ceiling_of_card(
    model: &ModelConfig,
    rows: usize,
    encoder: &EncoderConfig,
    surroundings: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    if model.backend.kind != BackendType::Cuda {
        return Ok(None);
    }
    let card = engine::card(model.backend.one_device(), surroundings)?;
    let shapes = super::doctor::card::shapes(encoder.hidden_size, encoder.intermediate_size);
    let speeds = embedgate_cuda::product_speeds(&card, rows, &shapes);
    let speeds = speeds.context("products cannot be timed")?;
    let format = engine::format(model);
    let of_format = speeds.iter().filter(|speed| speed.format == format);
    let most = of_format
        .map(|speed| speed.teraflops() * 1e12)
        .fold(0.0, f64::max);
    Ok(Some(Ceiling {
        layers: most,
        attention: most,
    }))
}

#[cfg(not(feature = "cuda"))]
fn ceiling_of_card(
    _: &ModelConfig,
    _: usize,
    _: &EncoderConfig,
    _: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    Ok(None)
}

#[cfg(feature = "cpu")]
fn ceiling(
    model: &ModelConfig,
    backend: &dyn Backend,
    surroundings: &Surroundings,
) -> Result<Option<Ceiling>, Failure> {
    use embedgate_core::Precision;

    let Ok(library) = embedgate_cpu::runtime::load(&surroundings.onednn()) else {
        return Ok(None);
    };
    let (threads, precision) = (surroundings.threads(model), backend.info().precision);
    if !embedgate_cpu::runs(library, precision) {
        return Ok(None);
    }
    let of_attention = match model.backend.kind {
        BackendType::Onnx => Precision::F32,
        _ => embedgate_cpu::of_attention(precision, library.instructions()),
    };
    let cores = surroundings.cores(model);
    let measured = |precision| {
        embedgate_cpu::ceiling(library, precision, threads, &cores)
            .context("the ceiling is not known")
    };
    Ok(Some(Ceiling {
        layers: measured(precision)?,
        attention: measured(of_attention)?,
    }))
}

#[cfg(not(feature = "cpu"))]
fn ceiling(_: &ModelConfig, _: &dyn Backend, _: &Surroundings) -> Result<Option<Ceiling>, Failure> {
    Ok(None)
}

fn ceilings(engines: &[Engine]) -> Table {
    let names = engines.iter().map(|engine| engine.name.clone());
    let mut table = Table::new(std::iter::once(String::new()).chain(names));
    let cells = engines.iter().map(|engine| {
        let giga = |ceiling: Ceiling| format!("{:.0}", ceiling.layers / 1e9);
        engine.ceiling.map(giga).unwrap_or_default()
    });
    table.row(std::iter::once("products, GFLOP/s".to_owned()).chain(cells));
    table
}

/// Random texts as `bench` sends them: in the best batches when all are known, and one at a time.
fn random_load(
    engines: &mut [Engine],
    tokenizer: &TextTokenizer,
    args: &BenchBackendArgs,
) -> Result<Table, Failure> {
    let mut sequences = Vec::new();
    for text in random_texts(args.words, args.seed, args.n) {
        sequences.push(tokenizer.encode(&text).map_err(anyhow::Error::msg)?.ids);
    }
    sequences.sort_by_key(Vec::len);
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let names = engines.iter().map(|engine| engine.name.clone());
    let title = format!("{} texts, {tokens} tokens", sequences.len());
    let mut table = Table::new(std::iter::once(title).chain(names));
    for budget in BUDGETS {
        let mut cells = vec![format!("batches of up to {budget:>4} tokens, tokens/s")];
        for engine in &mut *engines {
            let seconds = seconds(engine.backend.as_mut(), &sequences, budget)?;
            cells.push(format!("{:.0}", tokens as f64 / seconds));
        }
        table.row(cells);
    }
    let mut cells = vec!["one text at a time, median, ms".to_owned()];
    for engine in engines {
        let mut alone = Vec::new();
        for ids in &sequences {
            let started = Instant::now();
            run_batch(
                engine.backend.as_mut(),
                &std::iter::once(ids.as_slice()).collect(),
            )?;
            alone.push(started.elapsed().as_secs_f64() * 1e3);
        }
        cells.push(format!("{:.2}", median(alone)));
    }
    table.row(cells);
    Ok(table)
}

/// The time for all sequences, in batches of neighbours in length; the least of three runs.
fn seconds(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    budget: usize,
) -> Result<f64, Failure> {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        let mut rest = sequences;
        while !rest.is_empty() {
            // Sorted, so the last of a batch is its longest.
            let fits = |n: &usize| *n == 1 || n * rest[n - 1].len() <= budget;
            let n = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
            let (batch, after) = rest.split_at(n);
            let batch: TokenBatch = batch.iter().map(Vec::as_slice).collect();
            run_batch(backend, &batch)?;
            rest = after;
        }
        least = least.min(started.elapsed().as_secs_f64());
    }
    Ok(least)
}
