//! Models in both formats against the candle backend, which is the reference, and against the contract: in the very PTX that ships, run
//! by the simulator.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/process.rs"]
#[expect(dead_code, reason = "other tests ask for their settings")]
mod process;
#[path = "support/random_model.rs"]
mod random_model;
#[path = "../../cpu/tests/support/reference.rs"]
mod reference;
#[path = "../../../tests/support/rerankers.rs"]
#[expect(
    dead_code,
    reason = "in 16 bits scores are near those of f32, not equal"
)]
mod rerankers;
#[path = "support/simulator.rs"]
mod simulator;

use std::path::Path;

use embedgate_candle::CandleBackend;
use embedgate_core::{
    Backend, EmbeddingBatch, Head, ModelFolder, Outputs, Pooling, TokenBatch, conformance,
};
use embedgate_cuda::{CudaBackend, Format};

use crate::{
    random_model::{Sizes, VOCABULARY},
    reference::{batch, candle, cosine, least_cosines},
    simulator::{load, load_with, options, tiny_bge_m3},
};

/// Both formats, and the cosine to f32 that each keeps at least.
const FORMATS: [(Format, f64); 2] = [(Format::F16, 0.9999), (Format::Bf16, 0.9995)];

const WITH_TOKENS: Outputs = Outputs::DENSE.with(Head::TokenVectors);

#[test]
fn it_keeps_the_contract() {
    let mut backend = load(&tiny_bge_m3(), Format::F16);
    assert_eq!(conformance::check(&mut backend), Ok(()));
}

#[test]
fn all_heads_of_bge_m3_are_near_the_reference() {
    let folder = tiny_bge_m3();
    let batch = batch(
        &[1, 2, 15, 64, 65, 130, 300],
        folder.encoder.vocabulary_size(),
    );
    let outputs = Outputs::BGE_M3.with(Head::TokenVectors);
    let expected = candle(&folder).embed(&batch, outputs).unwrap();
    for (format, least) in FORMATS {
        let got = load(&folder, format).embed(&batch, outputs).unwrap();
        near(&got, &expected, least);
        let rows = |results: &EmbeddingBatch| results.rows(Head::MultiVector).unwrap().to_vec();
        for (a, b) in rows(&got).iter().zip(&rows(&expected)) {
            assert_eq!(a.rows(), b.rows());
            let near = (0..a.rows()).map(|i| cosine(a.row(i), b.row(i)));
            assert!(near.fold(1.0, f64::min) >= least, "{format:?}");
        }
        let weights = |results: &EmbeddingBatch| results.weights(Head::Sparse).unwrap().to_vec();
        let (mut common, mut all) = (0, 0);
        for (a, b) in weights(&got).iter().zip(&weights(&expected)) {
            common += a.indices.iter().filter(|id| b.indices.contains(id)).count();
            all += b.indices.len();
        }
        // A weight near 0 may fall on either side of it.
        assert!(
            common * 100 >= all * 99 && all > 100,
            "{format:?}: {common} of {all}"
        );
    }
}

/// A family that is BERT but for names runs, and one that is not is refused by what it has.
#[test]
fn families_are_run_or_refused_by_name() {
    let folder = families("distilbert");
    let batch = batch(&[1, 17, 40], folder.encoder.vocabulary_size());
    let expected = candle(&folder).embed(&batch, WITH_TOKENS).unwrap();
    let got = load(&folder, Format::F16).embed(&batch, WITH_TOKENS);
    near(&got.unwrap(), &expected, 0.999);
    let folder = families("qwen3");
    let device = simulator::open().unwrap();
    let refused = CudaBackend::load(&folder, &device, 0, options(&folder, Format::F16));
    let why = refused.err().unwrap().to_string();
    assert!(
        why.contains("qwen3") && why.contains("rotary positions"),
        "{why}"
    );
}

fn families(name: &str) -> ModelFolder {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    ModelFolder::open(&fixtures.join("families").join(name)).unwrap()
}

/// Takes minutes: `scripts/test-gpu` runs it.
#[test]
#[ignore = "takes minutes"]
fn sequences_up_to_the_longest_are_near_the_reference() {
    let folder = tiny_bge_m3();
    let mut backend = load_with(&folder, Format::F16, |options| {
        options.max_sequence_tokens = 8192;
        options.max_batch_tokens = 8192;
    });
    let mut reference = candle(&folder);
    for length in [512, 1000, 2048, 4097, 8192] {
        let batch = batch(&[length], folder.encoder.vocabulary_size());
        let expected = reference.embed(&batch, WITH_TOKENS).unwrap();
        near(
            &backend.embed(&batch, WITH_TOKENS).unwrap(),
            &expected,
            FORMATS[0].1,
        );
    }
}

/// The tensor products of Hopper are other instructions.
#[test]
fn bge_m3_on_hopper_is_near_the_reference_too() {
    let test = "bge_m3_on_hopper_is_near_the_reference_too";
    if process::in_one_with(test, "capability=9.0") {
        let folder = tiny_bge_m3();
        let batch = batch(&[5, 64, 200], folder.encoder.vocabulary_size());
        let expected = candle(&folder).embed(&batch, WITH_TOKENS).unwrap();
        for (format, least) in FORMATS {
            near(
                &load(&folder, format).embed(&batch, WITH_TOKENS).unwrap(),
                &expected,
                least,
            );
        }
    }
}

fn near(got: &EmbeddingBatch, expected: &EmbeddingBatch, least: f64) {
    let (dense, tokens) = least_cosines(got, expected);
    assert!(
        dense >= least && tokens >= least,
        "{dense} {tokens}, at least {least}"
    );
}

/// Few multiprocessors are filled by few tiles, so that a text alone and a batch go through tiles of other sizes.
#[test]
fn a_text_has_the_same_bits_alone_and_in_any_batch() {
    let test = "a_text_has_the_same_bits_alone_and_in_any_batch";
    if !process::in_one_with(test, "multiprocessors=4") {
        return;
    }
    let folder = tiny_bge_m3();
    let lengths = [7, 300, 1, 64, 129];
    let whole = batch(&lengths, folder.encoder.vocabulary_size());
    let mut backend = load(&folder, Format::F16);
    let together = backend.embed(&whole, Outputs::BGE_M3).unwrap();
    for (i, sequence) in whole.iter().enumerate() {
        let alone: TokenBatch = [sequence.ids].into_iter().collect();
        let alone = backend.embed(&alone, Outputs::BGE_M3).unwrap();
        let rows = |results: &EmbeddingBatch, i: usize| {
            let dense = results.vectors(Head::Dense).unwrap().row(i).to_vec();
            let sparse = results.weights(Head::Sparse).unwrap()[i].clone();
            (
                dense,
                sparse,
                results.rows(Head::MultiVector).unwrap()[i].clone(),
            )
        };
        assert_eq!(rows(&together, i), rows(&alone, 0), "sequence {i}");
    }
    // A backend with little memory runs the batch in parts.
    let mut small = load_with(&folder, Format::F16, |options| {
        options.max_sequence_tokens = 300;
        options.max_batch_tokens = 300;
    });
    assert_eq!(small.embed(&whole, Outputs::BGE_M3).unwrap(), together);
    // First tokens alone go another way through the last layer.
    let dense = backend.embed(&whole, Outputs::DENSE).unwrap();
    let vectors = |results: &EmbeddingBatch| results.vectors(Head::Dense).unwrap().clone();
    assert_eq!(vectors(&dense), vectors(&together));
    // Replicas share the weights, and run at the same time.
    let mut other = backend.replicas().unwrap()().unwrap();
    let copy = whole.clone();
    let thread = std::thread::spawn(move || other.embed(&copy, Outputs::BGE_M3).unwrap());
    assert_eq!(backend.embed(&whole, Outputs::BGE_M3).unwrap(), together);
    assert_eq!(thread.join().unwrap(), together);
}

#[test]
fn every_way_of_pooling_is_that_of_the_reference() {
    let folder = tiny_bge_m3();
    let batch = batch(&[1, 40, 33], folder.encoder.vocabulary_size());
    for pooling in [Pooling::CLS, Pooling::MEAN, Pooling::LAST, Pooling::MAX] {
        let of_candle =
            embedgate_candle::Options::on_processor(pooling, folder.max_sequence_tokens, 2);
        let mut candle = CandleBackend::load(&folder, of_candle).unwrap();
        let mut backend = load_with(&folder, Format::F16, |options| options.pooling = pooling);
        let expected = candle.embed(&batch, WITH_TOKENS).unwrap();
        near(
            &backend.embed(&batch, WITH_TOKENS).unwrap(),
            &expected,
            0.9999,
        );
    }
}

#[test]
fn models_of_usual_and_odd_sizes_are_near_the_reference() {
    let sizes = |n_heads, head_size, feed_forward, activation| Sizes {
        n_layers: 1,
        n_heads,
        head_size,
        feed_forward,
        activation,
    };
    let cases = [
        // Heads that are padded, rows that are no multiple of a tile, and heads of zeros beside them.
        (sizes(12, 26, 600, "gelu"), &[1, 70, 33][..]),
        (sizes(3, 16, 100, "gelu"), &[65, 2]),
        (sizes(2, 100, 200, "gelu_new"), &[130]),
        // As MiniLM, BERT and XLM-R large are.
        (sizes(12, 32, 1536, "relu"), &[70, 3]),
        (sizes(12, 64, 3072, "gelu"), &[40]),
        (sizes(16, 64, 4096, "gelu"), &[33]),
    ];
    for (i, (sizes, lengths)) in cases.into_iter().enumerate() {
        let path = tempfile::tempdir().unwrap();
        let folder = random_model::write(path.path(), &sizes);
        let batch = batch(lengths, VOCABULARY);
        let expected = candle(&folder).embed(&batch, WITH_TOKENS).unwrap();
        let (format, least) = FORMATS[i % 2];
        near(
            &load(&folder, format).embed(&batch, WITH_TOKENS).unwrap(),
            &expected,
            least,
        );
    }
}

#[test]
fn cross_encoders_score_as_transformers_does_within_f16() {
    for name in rerankers::NAMES {
        let folder: ModelFolder = rerankers::open(name);
        let mut backend = load(&folder, Format::F16);
        rerankers::scores_are_near_transformers(&mut backend, name, 0.02);
        rerankers::it_gives_scores_alone(&mut backend);
    }
    rerankers::segments_change_scores(&mut load(&rerankers::open("bert"), Format::F16));
}

#[test]
fn the_fastest_kernels_are_found_by_time_and_change_no_bit() {
    let test = "the_fastest_kernels_are_found_by_time_and_change_no_bit";
    if !process::in_one_with(test, "multiprocessors=1") {
        return;
    }
    let folder = tiny_bge_m3();
    let batch = batch(&[5, 90], folder.encoder.vocabulary_size());
    let expected = load(&folder, Format::Bf16)
        .embed(&batch, Outputs::BGE_M3)
        .unwrap();
    let mut timed = load_with(&folder, Format::Bf16, |options| options.timed_rows = 70);
    assert_eq!(timed.embed(&batch, Outputs::BGE_M3).unwrap(), expected);
}

#[test]
fn weights_that_f16_does_not_hold_are_refused_and_bf16_holds_them() {
    let path = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        n_layers: 1,
        n_heads: 2,
        head_size: 32,
        feed_forward: 64,
        activation: "gelu",
    };
    let folder = random_model::write(path.path(), &sizes);
    random_model::change(path.path(), "embeddings.word_embeddings.weight", 1e5);
    let device = simulator::open().unwrap();
    let refused =
        embedgate_cuda::CudaBackend::load(&folder, &device, 0, options(&folder, Format::F16));
    let said = refused.err().unwrap().to_string();
    assert!(
        said.contains("\"embeddings.word_embeddings.weight\" holds 100000")
            && said.contains("\"bf16\""),
        "{said}"
    );
    let batch = batch(&[3], VOCABULARY);
    load(&folder, Format::Bf16)
        .embed(&batch, Outputs::DENSE)
        .unwrap();
}
