//! Tiny models of each family with what their reference libraries make of sequences, and what a backend must make of them.

use std::path::{Path, PathBuf};

use embedgate_core::{
    Backend, Head, Matrix, ModelFolder, Outputs, TokenBatch, Variant, conformance,
};
use safetensors::SafeTensors;

/// The embedders.
pub(crate) const EMBEDDERS: &[&str] = &[
    "albert",
    "deberta-v2",
    "deberta-v2-exact",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "gemma3_text",
    "gte",
    "jina",
    "jina-code",
    "jina3",
    "jina3-adapters",
    "mistral",
    "modernbert",
    "mpnet",
    "nomic",
    "nomic-moe",
    "qwen2",
    "qwen3",
    "t5",
    "t5-relu",
];
/// The cross-encoders.
pub(crate) const CROSS_ENCODERS: &[&str] = &[
    "albert-classifier",
    "deberta-v2-classifier",
    "distilbert-classifier",
    "electra-classifier",
    "eurobert-classifier",
    "jina-reranker",
    "jina3-classifier",
    "modernbert-classifier",
    "mpnet-classifier",
    "qwen3-classifier",
];
/// f32 on another library sums in another order. A wrong `eps` or the other form of GELU makes more than this.
const DIFFERENCE: f32 = 2e-5;

fn path(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    fixtures.join("families").join(name)
}

/// The folder of a tiny model.
pub(crate) fn open(name: &str) -> ModelFolder {
    let variant = Variant {
        adapter: (name == "jina3-adapters").then_some("second"),
        ..Variant::default()
    };
    let opened = ModelFolder::open_variant(&path(name), variant);
    opened.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The sequences, and what the reference made of them.
struct Reference {
    sequences: Vec<Vec<u32>>,
    /// Token vectors of each sequence, or its score alone.
    results: Vec<Vec<f32>>,
}

impl Reference {
    fn open(name: &str) -> Self {
        let file = std::fs::read(path(name).join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let numbers = |part: &str| -> Vec<u32> {
            let tensor = tensors.tensor(part).unwrap();
            let numbers = tensor.data().as_chunks().0.iter();
            numbers.map(|bytes| u32::from_le_bytes(*bytes)).collect()
        };
        let (ids, offsets) = (numbers("ids"), numbers("offsets"));
        let is_score = tensors.tensor("scores").is_ok();
        let name = if is_score { "scores" } else { "hidden" };
        let results: Vec<f32> = numbers(name).into_iter().map(f32::from_bits).collect();
        let width = results.len()
            / if is_score {
                offsets.len() - 1
            } else {
                ids.len()
            };
        let ranges = offsets.windows(2);
        let ranges = ranges.map(|ends| ends[0] as usize..ends[1] as usize);
        let sequences: Vec<Vec<u32>> = ranges.clone().map(|range| ids[range].to_vec()).collect();
        assert!(sequences.iter().any(|sequence| sequence.len() > 100));
        let of_sequence = |(i, range): (usize, std::ops::Range<usize>)| {
            let rows = if is_score { i..i + 1 } else { range };
            results[rows.start * width..rows.end * width].to_vec()
        };
        Self {
            results: ranges.enumerate().map(of_sequence).collect(),
            sequences,
        }
    }
}

/// Token vectors or scores of each sequence, in batches of so many.
fn run(
    backend: &mut dyn Backend,
    sequences: &[Vec<u32>],
    size: usize,
    head: Head,
) -> Vec<Vec<f32>> {
    let outputs = Outputs::of(&[head]);
    let batches = sequences.chunks(size).flat_map(|sequences| {
        let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
        let result = backend.embed(&batch, outputs).unwrap();
        match head {
            Head::Score => {
                let scores = result.scores(head).unwrap();
                scores.iter().map(|score| vec![*score]).collect()
            }
            _ => {
                let rows: Vec<Matrix> = result.rows(head).unwrap().to_vec();
                rows.into_iter()
                    .map(|matrix| matrix.data)
                    .collect::<Vec<_>>()
            }
        }
    });
    batches.collect()
}

/// Results are the reference's, alone and in batches.
pub(crate) fn results_equal_the_reference(backend: &mut dyn Backend, name: &str) {
    let most = farthest(backend, name);
    assert!(most <= DIFFERENCE, "{name} differs by {most}");
}

/// The largest difference of a number from the reference's, relative where it is larger than 1, alone and in batches.
pub(crate) fn farthest(backend: &mut dyn Backend, name: &str) -> f32 {
    let reference = Reference::open(name);
    let head = match backend.info().outputs.has(Head::Score) {
        true => Head::Score,
        false => Head::TokenVectors,
    };
    let mut most = 0.0_f32;
    for size in [1, 3, reference.sequences.len()] {
        let results = run(backend, &reference.sequences, size, head);
        assert_eq!(results.len(), reference.results.len());
        for (i, (got, expected)) in results.iter().zip(&reference.results).enumerate() {
            assert_eq!(got.len(), expected.len(), "{name}, sequence {i}");
            for (got, expected) in got.iter().zip(expected) {
                let far = (got - expected).abs() / expected.abs().max(1.0);
                assert!(far.is_finite(), "{name}, sequence {i}: {got}");
                most = most.max(far);
            }
        }
    }
    most
}

/// The least cosine of a mean of token vectors with the reference's, for a backend of a coarser precision.
pub(crate) fn least_cosine(backend: &mut dyn Backend, name: &str) -> f64 {
    let reference = Reference::open(name);
    let results = run(backend, &reference.sequences, 3, Head::TokenVectors);
    let cosines = results
        .iter()
        .zip(&reference.results)
        .zip(&reference.sequences);
    let cosines = cosines.map(|((got, expected), sequence)| {
        let width = got.len() / sequence.len();
        let mean = |all: &[f32]| -> Vec<f64> {
            let column = |i: usize| {
                all.iter()
                    .skip(i)
                    .step_by(width)
                    .map(|x| f64::from(*x))
                    .sum()
            };
            (0..width).map(column).collect()
        };
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let (a, b) = (mean(got), mean(expected));
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    });
    cosines.fold(1.0, f64::min)
}

/// The backend keeps its contract.
pub(crate) fn keeps_the_contract(backend: &mut dyn Backend) {
    conformance::check(backend).unwrap();
}
