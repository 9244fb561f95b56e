//! Pairs with the scores that transformers gives them, and what a backend must make of them.

use std::path::{Path, PathBuf};

use embedgate_core::{Backend, BackendError, Head, ModelFolder, Outputs, TokenBatch, conformance};
use safetensors::SafeTensors;

/// The tiny cross-encoders.
pub(crate) const NAMES: [&str; 2] = ["bert", "xlmr"];
/// f32 on another library sums in another order.
const DIFFERENCE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The folder of a tiny cross-encoder.
pub(crate) fn open(name: &str) -> ModelFolder {
    ModelFolder::open(&fixtures().join(format!("tiny-{name}-reranker"))).unwrap()
}

/// What transformers made of the pairs.
struct Reference {
    /// Ids and segments of each pair.
    pairs: Vec<(Vec<u32>, Vec<u32>)>,
    scores: Vec<f32>,
}

impl Reference {
    fn open(name: &str) -> Self {
        let file = std::fs::read(fixtures().join("tiny_rerankers_reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let tensor = |part: &str| tensors.tensor(&format!("{name}.{part}")).unwrap();
        let numbers = |part: &str| -> Vec<u32> {
            let numbers = tensor(part).data().as_chunks().0.iter();
            numbers
                .map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)).unwrap())
                .collect()
        };
        let (ids, segments) = (numbers("ids"), numbers("segments"));
        let pair = |ends: &[u32]| {
            let range = ends[0] as usize..ends[1] as usize;
            (ids[range.clone()].to_vec(), segments[range].to_vec())
        };
        let scores = tensor("scores");
        let scores = scores.data().as_chunks().0.iter();
        Self {
            pairs: numbers("offsets").windows(2).map(pair).collect(),
            scores: scores.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        }
    }
}

fn scores(backend: &mut dyn Backend, pairs: &[(Vec<u32>, Vec<u32>)]) -> Vec<f32> {
    let mut batch = TokenBatch::new();
    for (ids, segments) in pairs {
        batch.push_pair(ids, segments);
    }
    let result = backend.embed(&batch, Outputs::SCORE).unwrap();
    result.scores(Head::Score).unwrap().to_vec()
}

/// Scores equal the reference, alone and in batches of any size.
pub(crate) fn scores_equal_transformers(backend: &mut dyn Backend, name: &str) {
    scores_are_near_transformers(backend, name, DIFFERENCE);
}

/// Scores differ from the reference by so much at most, alone and in batches of any size.
pub(crate) fn scores_are_near_transformers(backend: &mut dyn Backend, name: &str, most: f32) {
    let reference = Reference::open(name);
    assert!(reference.pairs.len() >= 30);
    for size in [1, 7, reference.pairs.len()] {
        let batches = reference.pairs.chunks(size);
        let got: Vec<f32> = batches.flat_map(|pairs| scores(backend, pairs)).collect();
        assert_eq!(got.len(), reference.scores.len());
        for (i, (expected, got)) in reference.scores.iter().zip(got).enumerate() {
            let far = (expected - got).abs();
            assert!(
                far <= most,
                "pair {i} of {name} in batches of {size}: {got}, expected {expected}"
            );
        }
    }
}

/// The same ids in one segment are another input: each pair's score moves by more than any tolerance.
pub(crate) fn segments_change_scores(backend: &mut dyn Backend) {
    let mut pairs = Reference::open("bert").pairs;
    pairs.retain(|(_, segments)| segments.contains(&1));
    assert!(pairs.len() >= 30);
    let as_pairs = scores(backend, &pairs);
    for (_, segments) in &mut pairs {
        segments.fill(0);
    }
    for (i, (two, one)) in as_pairs.iter().zip(scores(backend, &pairs)).enumerate() {
        assert!(
            (two - one).abs() > 10.0 * DIFFERENCE,
            "pair {i}: {two}, {one}"
        );
    }
}

/// Such a model gives scores and nothing else, and keeps the contract.
pub(crate) fn it_gives_scores_alone(backend: &mut dyn Backend) {
    assert_eq!(backend.info().outputs, Outputs::SCORE);
    assert_eq!(backend.info().dimensions, 0);
    let one: TokenBatch = std::iter::once(&[0, 5, 2][..]).collect();
    let refused = backend.embed(&one, Outputs::DENSE);
    assert!(matches!(
        refused,
        Err(BackendError::UnsupportedOutput { .. })
    ));
    assert_eq!(conformance::check(backend), Ok(()));
}
