//! `embedgate bench-backend`: what a model's backend does without a gateway around it, how near that is to what the
//! processor or the card can do, and what each precision costs in accuracy.

mod accuracy;
mod ceiling;
mod engines;
mod random_load;
mod speed;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, Environment, LogLevel, ModelConfig};
use embedgate_core::Head;
use embedgate_tools::table::Table;

use self::{
    ceiling::Ceiling,
    engines::{MeasuredBackend, Subject, precisions},
    random_load::random_load,
};
use super::{Failure, start_log};
use crate::{
    args::bench_backend::BenchBackendArgs,
    model::{load, load_context::LoadContext, loader::Loader},
};

pub(super) fn run(
    config: Option<&Path>,
    args: &BenchBackendArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let config = Config::load_for_a_command(config, environment)?;
    let model = named(&config, args)?;
    check_numbers(args)?;
    let texts = texts(args)?;
    let plan = load::plan(model)?;
    let tokenizer = load::tokenizer(&plan).map_err(anyhow::Error::from)?;
    let loader = Loader {
        name: "of the benchmark",
        config: model,
        plan: &plan,
        tokenizer: &tokenizer,
        context: &LoadContext::new(&config, environment),
    };
    let subject = Subject { loader, args };
    let mut engines = Vec::new();
    for precision in precisions(model, args)? {
        engines.push(subject.open(precision)?);
    }
    report(&subject, &mut engines, &texts)
}

/// The model that is asked for, or the default one.
fn named<'a>(config: &'a Config, args: &BenchBackendArgs) -> anyhow::Result<&'a ModelConfig> {
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
    model.with_context(|| format!("no such model: choose one with --model: {}", names()))
}

fn check_numbers(args: &BenchBackendArgs) -> anyhow::Result<()> {
    let batch = args.batch_tokens.unwrap_or(1);
    let numbers = [
        ("--rounds", args.rounds),
        ("--longest", args.longest),
        ("--batch-tokens", batch),
    ];
    for (flag, value) in numbers {
        if value == 0 {
            return Err(anyhow!("{flag} must be at least 1"));
        }
    }
    Ok(())
}

/// The texts whose vectors are compared.
fn texts(args: &BenchBackendArgs) -> anyhow::Result<Vec<String>> {
    let texts = accuracy::texts(args.texts.as_deref())?;
    if texts.len() < 2 {
        return Err(anyhow!("--texts must name a file of 2 lines at least"));
    }
    if args.queries.is_some_and(|n| n == 0 || n >= texts.len()) {
        return Err(anyhow!("--queries must be 1 to {}", texts.len() - 1));
    }
    Ok(texts)
}

/// Measures, and prints what was found.
fn report(
    subject: &Subject<'_>,
    engines: &mut [MeasuredBackend],
    texts: &[String],
) -> Result<(), Failure> {
    let args = subject.args;
    let mut out = io::stdout();
    let mut print =
        |what: &dyn std::fmt::Display| writeln!(out, "{what}").context("standard output");
    let (plan, tokenizer) = (subject.loader.plan, subject.loader.tokenizer);
    let threads = engines[0].threads;
    let info = engines[0].backend.info();
    let (backend, device) = (info.backend, info.device.clone());
    let on_card = device != "cpu";
    match on_card {
        true => print(&format!("backend {backend} on {device}\n"))?,
        false => print(&format!("backend {backend}, {threads} threads\n"))?,
    }
    if engines.iter().any(|engine| engine.ceiling.is_some()) {
        print(&ceilings(engines))?;
    }
    print(&"tokens/s, medians, and the share of what the products alone would allow")?;
    let shapes = speed::Shapes {
        longest: args.longest.min(plan.max_tokens),
        batch_tokens: on_card.then(|| subject.batch_tokens()),
        rounds: args.rounds,
        seed: args.seed,
    };
    let speeds = speed::measure(engines, &plan.folder.encoder, &shapes)?;
    print(&speeds)?;
    if args.n > 0 {
        print(&random_load(engines, tokenizer, args)?)?;
    }
    if engines.len() > 1 && engines[0].backend.info().outputs.has(Head::Dense) {
        let (n, first) = (texts.len(), &engines[0].name);
        print(&format!("{n} texts, dense vectors beside those of {first}"))?;
        let compared = accuracy::compare(engines, tokenizer, texts, args.queries)?;
        print(&compared)?;
    }
    Ok(())
}

fn ceilings(engines: &[MeasuredBackend]) -> Table {
    let names = engines.iter().map(|engine| engine.name.clone());
    let mut table = Table::new(std::iter::once(String::new()).chain(names));
    let cells = engines.iter().map(|engine| {
        let giga = |ceiling: Ceiling| format!("{:.0}", ceiling.layers / 1e9);
        engine.ceiling.map(giga).unwrap_or_default()
    });
    table.row(std::iter::once("products, GFLOP/s".to_owned()).chain(cells));
    table
}
