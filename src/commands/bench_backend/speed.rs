//! Tokens a second in batches of known shapes, and what part that is of what the device's products would allow.

use std::time::{Duration, Instant};

use anyhow::Context;
use embedgate_core::{Backend, EncoderConfig, Layout, TokenBatch};
use embedgate_tools::{bench::median, table::Table};

use super::{Engine, Failure};

/// Sequences, and tokens of each.
const SHAPES: [(usize, usize); 5] = [(1, 16), (1, 128), (8, 128), (4, 512), (1, 8192)];
/// Tokens of each sequence on a card, where batches are as large as they may be.
const LENGTHS: [usize; 6] = [16, 50, 128, 512, 2048, 8192];
/// Sequences of the mixed load, and tokens of each, the logarithm spread evenly.
const MIXED: (usize, [usize; 2]) = (64, [10, 512]);
/// Most tokens in a batch of the mixed load on the processor.
const MIXED_BATCH: usize = 256;
/// No further round of a shape is begun after so long.
const MOST_TIME: Duration = Duration::from_secs(20);

/// A load: batches that are run one after the other.
struct Load {
    name: String,
    batches: Vec<TokenBatch>,
}

impl Load {
    fn n_tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.ids().len()).sum()
    }
}

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
    engines: &mut [Engine],
    encoder: &EncoderConfig,
    plan: &Shapes,
) -> Result<Table, Failure> {
    let names = engines.iter().map(|engine| engine.name.clone());
    let mut table = Table::new(std::iter::once("sequences x tokens".to_owned()).chain(names));
    let layout = engines[0].backend.info().layout;
    for load in loads(encoder.vocabulary_size, layout, plan) {
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

pub(super) fn run(backend: &mut dyn Backend, batch: &TokenBatch) -> Result<(), Failure> {
    let outputs = backend.info().outputs.main();
    backend
        .embed(batch, outputs)
        .context("the backend failed")?;
    Ok(())
}

fn loads(vocabulary: usize, layout: Layout, plan: &Shapes) -> Vec<Load> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    // Special tokens come first in most vocabularies.
    let least = (vocabulary / 50).min(1000);
    let mut ids = |n: usize| -> Vec<u32> {
        let id = |_| u32::try_from(random.usize(least..vocabulary)).unwrap_or(0);
        (0..n).map(id).collect()
    };
    let shapes = match plan.batch_tokens {
        None => SHAPES.to_vec(),
        Some(tokens) => {
            let full = LENGTHS.map(|length| ((tokens / length).max(1), length));
            [(1, LENGTHS[0])].into_iter().chain(full).collect()
        }
    };
    let longest = plan.longest;
    let fitting = shapes.iter().filter(|(_, length)| *length <= longest);
    let mut loads: Vec<Load> = fitting
        .map(|(n, length)| Load {
            name: format!("{n} x {length}"),
            batches: vec![ids(n * length).chunks(*length).collect()],
        })
        .collect();
    let (n, [shortest, most]) = MIXED;
    let (shortest, most) = (shortest.min(longest), most.min(longest));
    let [from, to] = [shortest, most].map(|length| (length as f64).ln());
    // The same lengths always, so that seeds differ in tokens alone.
    let length = |i: usize| {
        (from + (to - from) * (i as f64 + 0.5) / n as f64)
            .exp()
            .round()
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two small positive numbers"
    )]
    let sequences: Vec<Vec<u32>> = (0..n).map(|i| ids(length(i) as usize)).collect();
    loads.push(Load {
        name: format!("{n} of {shortest} to {most}"),
        batches: batches(&sequences, layout, plan.batch_tokens.unwrap_or(MIXED_BATCH)),
    });
    loads
}

/// Batches of neighbours in length, as large as the gateway's are.
fn batches(sequences: &[Vec<u32>], layout: Layout, most: usize) -> Vec<TokenBatch> {
    let mut all: Vec<Vec<&[u32]>> = Vec::new();
    for sequence in sequences {
        let fits = |batch: &Vec<&[u32]>| {
            let held: usize = match layout {
                Layout::Packed => batch.iter().map(|other| other.len()).sum(),
                Layout::Padded => batch.len() * sequence.len(),
            };
            held + sequence.len() <= most
        };
        match all.last_mut() {
            Some(batch) if fits(batch) => batch.push(sequence),
            _ => all.push(vec![sequence]),
        }
    }
    all.iter()
        .map(|batch| batch.iter().copied().collect())
        .collect()
}

/// The most that a device does in a second: multiplications and additions of the layers' products, and of attention's.
#[derive(Clone, Copy)]
pub(super) struct Ceiling {
    pub(super) layers: f64,
    pub(super) attention: f64,
}

/// The time that all products of the encoder would take at the ceiling, for all tokens in all layers.
fn least_seconds(load: &Load, encoder: &EncoderConfig, ceiling: Ceiling) -> f64 {
    let (width, wide) = (encoder.hidden_size, encoder.intermediate_size);
    let of_token = 2 * (4 * width * width + 2 * width * wide) * encoder.n_layers;
    let lengths = load.batches.iter().flat_map(|batch| batch.iter());
    lengths
        .map(|sequence| {
            let n = sequence.ids.len();
            let of_attention = 4 * n * n * width * encoder.n_layers;
            (n * of_token) as f64 / ceiling.layers + of_attention as f64 / ceiling.attention
        })
        .sum()
}
