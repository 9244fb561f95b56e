//! Random texts, as `bench` sends them: in batches of several sizes, and one at a time.

use std::time::Instant;

use embedgate_core::{Backend, TokenBatch};
use embedgate_tools::{
    bench::{median, random_texts},
    table::Table,
};

use super::{Failure, engines::MeasuredBackend, speed::run as run_batch};
use crate::{args::bench_backend::BenchBackendArgs, model::tokenizer::TextTokenizer};

/// Batches of so many tokens at most are tried.
const BUDGETS: [usize; 6] = [64, 128, 256, 512, 1024, 2048];

/// Random texts as `bench` sends them: in the best batches when all are known, and one at a time.
pub(super) fn random_load(
    engines: &mut [MeasuredBackend],
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
