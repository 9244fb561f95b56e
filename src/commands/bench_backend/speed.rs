//! Tokens a second in batches of known shapes, and what part that is of what the device's products would allow.

mod loads;

use std::time::{Duration, Instant};

use anyhow::Context;
use embedgate_core::{Backend, EncoderConfig, TokenBatch};
use embedgate_tools::{bench::median, table::Table};

use self::loads::{Workload, loads};
use super::{Failure, ceiling::Ceiling, engines::MeasuredBackend};

/// No further round of a shape is begun after so long.
const MOST_TIME: Duration = Duration::from_secs(20);

/// The batches that are run, and how often.
pub(super) struct Shapes {
    /// Most tokens of a sequence.
    pub(super) longest: usize,
    /// Tokens of a batch on a card; none on the processor, where batches are small.
    pub(super) batch_tokens: Option<usize>,
    /// Runs of each shape.
    pub(super) rounds: usize,
    /// Chooses the tokens.
    pub(super) seed: u64,
}

/// Runs every shape in every engine, in turns, and takes medians.
pub(super) fn measure(
    engines: &mut [MeasuredBackend],
    encoder: &EncoderConfig,
    plan: &Shapes,
) -> Result<Table, Failure> {
    let names = engines.iter().map(|engine| engine.name.clone());
    let mut table = Table::new(std::iter::once("sequences x tokens".to_owned()).chain(names));
    let layout = engines[0].backend.info().layout;
    for load in loads(encoder.vocabulary_size(), layout, plan) {
        let mut seconds = vec![Vec::new(); engines.len()];
        let started = Instant::now();
        for _ in 0..plan.rounds {
            for (engine, seconds) in engines.iter_mut().zip(&mut seconds) {
                let run_started = Instant::now();
                for batch in &load.batches {
                    run(engine.backend.as_mut(), batch)?;
                }
                seconds.push(run_started.elapsed().as_secs_f64());
            }
            if started.elapsed() > MOST_TIME {
                break;
            }
        }
        let cells = engines.iter().zip(seconds).map(|(engine, seconds)| {
            let seconds = median(seconds);
            let rate = format!("{:.0}", load.n_tokens() as f64 / seconds);
            match engine.ceiling {
                Some(ceiling) => {
                    let least = least_seconds(&load, encoder, ceiling);
                    format!("{rate} ({:.0} %)", least / seconds * 100.0)
                }
                None => rate,
            }
        });
        table.row(std::iter::once(load.name.clone()).chain(cells));
    }
    Ok(table)
}

/// Runs a batch.
pub(super) fn run(backend: &mut dyn Backend, batch: &TokenBatch) -> Result<(), Failure> {
    let outputs = backend.info().outputs.main();
    backend
        .embed(batch, outputs)
        .context("the backend failed")?;
    Ok(())
}

/// The time that all products of the encoder would take at the ceiling, for all tokens in all layers.
fn least_seconds(load: &Workload, encoder: &EncoderConfig, ceiling: Ceiling) -> f64 {
    let of_token = 2 * encoder.token_weights();
    let of_pair = 4 * encoder.attention.query_width();
    let lengths = load.batches.iter().flat_map(|batch| batch.iter());
    lengths
        .map(|sequence| {
            let n = sequence.ids.len();
            let layers = encoder.layers.iter();
            let seen = layers.flat_map(|layer| (0..n).map(|at| layer.reach.of(at, n).len()));
            let of_attention = of_pair * seen.sum::<usize>();
            (n * of_token) as f64 / ceiling.layers + of_attention as f64 / ceiling.attention
        })
        .sum()
}
