//! The loads whose speed is measured: batches of one shape, and a mixed one.

use embedgate_core::{Layout, TokenBatch};

use super::Shapes;

/// Sequences, and tokens of each.
const SHAPES: [(usize, usize); 5] = [(1, 16), (1, 128), (8, 128), (4, 512), (1, 8192)];
/// Tokens of each sequence on a card, where batches are as large as they may be.
const LENGTHS: [usize; 6] = [16, 50, 128, 512, 2048, 8192];
/// Sequences of the mixed load, and tokens of each, the logarithm spread evenly.
const MIXED: (usize, [usize; 2]) = (64, [10, 512]);
/// Most tokens in a batch of the mixed load on the processor.
const MIXED_BATCH: usize = 256;

/// A load: batches that are run one after the other.
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) batches: Vec<TokenBatch>,
}

impl Workload {
    /// Tokens of all batches.
    pub(super) fn n_tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.ids().len()).sum()
    }
}

/// Makes all loads, of random tokens.
pub(super) fn loads(vocabulary: usize, layout: Layout, plan: &Shapes) -> Vec<Workload> {
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
    let mut loads: Vec<Workload> = fitting
        .map(|(n, length)| Workload {
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
    loads.push(Workload {
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
