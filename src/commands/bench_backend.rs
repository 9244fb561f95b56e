//! `embedgate bench-backend`: what a model's backend does without a gateway around it, to compare the gateway with.

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use anyhow::Context;
use embedgate_core::{Backend, TokenBatch};

use super::{Failure, start_log};
use crate::{
    args::BenchBackendArgs,
    bench::{median, random_texts},
    config::{Config, Environment, LogLevel},
    model::{
        engine,
        load::{self, Surroundings},
    },
};

/// Batches of so many tokens at most are tried.
const BUDGETS: [usize; 6] = [64, 128, 256, 512, 1024, 2048];

pub(super) fn run(
    config: Option<&Path>,
    args: &BenchBackendArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let config = Config::load(config, environment)?;
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
    if args.n == 0 {
        return Err(anyhow::anyhow!("-n must be at least 1").into());
    }
    let plan = load::plan(model)?;
    let tokenizer = load::tokenizer(&plan).map_err(anyhow::Error::from)?;
    let surroundings = Surroundings::new(&config, environment);
    let model = &engine::resolve("of the benchmark", model, &surroundings)?;
    let mut backend = engine::open(&plan, model, &tokenizer, &surroundings)?;
    let mut sequences = Vec::new();
    for text in random_texts(args.words, args.seed, args.n) {
        sequences.push(tokenizer.encode(&text).map_err(anyhow::Error::msg)?.ids);
    }
    sequences.sort_by_key(Vec::len);
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let mut out = io::stdout();
    writeln!(out, "{} texts, {tokens} tokens", sequences.len()).context("standard output")?;
    for budget in BUDGETS {
        let seconds = seconds(backend.as_mut(), &sequences, budget)?;
        writeln!(
            out,
            "batches of up to {budget:>4} tokens: {:>7.0} tokens/s",
            tokens as f64 / seconds
        )
        .context("standard output")?;
    }
    let mut alone = Vec::new();
    for ids in &sequences {
        let started = Instant::now();
        run_batch(backend.as_mut(), std::slice::from_ref(ids))?;
        alone.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let median = median(alone);
    writeln!(out, "one text at a time: median {median:.2} ms").context("standard output")?;
    Ok(())
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
            run_batch(backend, batch)?;
            rest = after;
        }
        least = least.min(started.elapsed().as_secs_f64());
    }
    Ok(least)
}

fn run_batch(backend: &mut dyn Backend, sequences: &[Vec<u32>]) -> Result<(), Failure> {
    let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
    let outputs = backend.info().outputs.main();
    backend
        .embed(&batch, outputs)
        .context("the backend failed")?;
    Ok(())
}
