//! Every precision against the candle backend, which is the reference, and f32 against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "engine/odd_model.rs"]
mod odd_model;
#[path = "support/precisions.rs"]
mod precisions;
#[path = "support/reference.rs"]
mod reference;
#[path = "support/load.rs"]
mod support;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use embedgate_core::{Backend, Head, ModelFolder, Outputs, Precision, conformance};

use crate::{
    precisions::{precisions, promised, runs},
    reference::{batch, candle, cosine, least_cosines},
};

fn tiny_bge_m3() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3")
}

fn minilm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/all-MiniLM-L6-v2")
}

/// Shorter and longer than tiles of queries (128) and of keys (512), and than steps of rows (16) and keys (32).
const LENGTHS: [usize; 14] = [1, 2, 15, 16, 17, 31, 33, 100, 128, 129, 200, 511, 512, 5];

#[test]
fn f32_keeps_the_contract() {
    for path in [tiny_bge_m3(), minilm()] {
        let folder = ModelFolder::open(&path).unwrap();
        let mut backend = support::load(&folder, Precision::F32);
        assert_eq!(conformance::check(&mut backend), Ok(()));
    }
}

#[test]
fn f32_runs_everywhere_and_int8_needs_no_less_than_bf16() {
    assert!(runs(Precision::F32));
    assert!(runs(Precision::Bf16) || !runs(Precision::Int8));
}

#[test]
fn every_precision_is_as_near_to_the_reference_as_it_promises() {
    for path in [tiny_bge_m3(), minilm()] {
        let folder = ModelFolder::open(&path).unwrap();
        let longest = folder.max_sequence_tokens;
        let lengths: Vec<usize> = LENGTHS.iter().map(|n| *n.min(&longest)).collect();
        let batch = batch(&lengths, folder.encoder.vocabulary_size());
        let outputs = Outputs::DENSE.with(Head::TokenVectors);
        let expected = candle(&folder).embed(&batch, outputs).unwrap();
        for (precision, dense, tokens) in promised() {
            let mut backend = support::load(&folder, precision);
            assert_eq!(backend.info().precision, precision);
            let got = backend.embed(&batch, outputs).unwrap();
            let (d, t) = least_cosines(&got, &expected);
            println!("{} {precision}: {d:.7} {t:.7}", path.display());
            assert!(d >= dense && t >= tokens, "{precision}: {d} {t}");
        }
    }
}

/// Dense vectors alone of a model that pools the first token go another way through the last layer.
#[test]
fn dense_vectors_alone_are_those_that_come_with_others() {
    let folder = ModelFolder::open(&tiny_bge_m3()).unwrap();
    let lengths = [1, 16, 17, 600, 3, 128];
    let batch = batch(&lengths, folder.encoder.vocabulary_size());
    let all = Outputs::DENSE.with(Head::TokenVectors);
    for precision in precisions() {
        let mut backend = support::load(&folder, precision);
        let with_others = backend
            .embed(&batch, all)
            .unwrap()
            .vectors(Head::Dense)
            .unwrap()
            .clone();
        let alone = backend
            .embed(&batch, Outputs::DENSE)
            .unwrap()
            .vectors(Head::Dense)
            .unwrap()
            .clone();
        for i in 0..lengths.len() {
            let near = cosine(alone.row(i), with_others.row(i));
            assert!(near > 0.999_999, "{precision} {i}: {near}");
        }
    }
}

/// More rows than a step has, so that there are pauses within a layer.
#[test]
fn pauses_change_nothing_in_any_precision() {
    let folder = ModelFolder::open(&tiny_bge_m3()).unwrap();
    let vocabulary = folder.encoder.vocabulary_size();
    let (long, short) = (batch(&[500; 5], vocabulary), batch(&[7], vocabulary));
    for precision in precisions() {
        let mut backend = support::load(&folder, precision);
        let expected = [&long, &short].map(|b| backend.embed(b, Outputs::BGE_M3).unwrap());
        let mut beside = Vec::new();
        let mut pause = |other: &mut dyn Backend| {
            beside.push(other.embed(&short, Outputs::BGE_M3).unwrap());
            ControlFlow::Continue(())
        };
        let paused = backend.embed_with_pauses(&long, Outputs::BGE_M3, &mut pause);
        assert_eq!(paused.unwrap(), expected[0]);
        // Three steps before the layers, and in each layer as many after attention.
        let n_layers = folder.encoder.layers.len();
        assert_eq!(beside.len(), 3 + n_layers * (1 + 3));
        assert!(beside.iter().all(|results| *results == expected[1]));
    }
}

#[test]
fn replicas_share_the_weights_and_give_the_same() {
    let folder = ModelFolder::open(&tiny_bge_m3()).unwrap();
    let batch = batch(&[5, 40], folder.encoder.vocabulary_size());
    let coarsest = precisions().last().expect("f32 runs everywhere");
    let mut first = support::load(&folder, coarsest);
    let replicas = first.replicas().expect("weights that can be shared");
    let mut second = replicas().unwrap();
    let expected = first.embed(&batch, Outputs::BGE_M3).unwrap();
    // The replicas keep the weights.
    drop(first);
    let other = std::thread::spawn(move || second.embed(&batch, Outputs::BGE_M3).unwrap());
    assert_eq!(other.join().unwrap(), expected);
}
