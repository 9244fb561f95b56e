//! Models in both formats against the candle backend, which is the reference, and against the contract: in the very PTX that ships, run
//! by the simulator.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/random_model.rs"]
mod random_model;
#[path = "../../cpu/tests/support/reference.rs"]
mod reference;
#[path = "../../../tests/support/rerankers.rs"]
mod rerankers;
#[path = "support/simulator.rs"]
mod simulator;

use std::path::{Path, PathBuf};

use embedgate_core::{Backend, ModelFolder, Outputs, Pooling, conformance};
use embedgate_cuda::{CudaBackend, Format, Options};

use crate::{
    random_model::{Sizes, VOCABULARY},
    reference::{batch, candle, cosine, least_cosines},
};

const FORMATS: [Format; 2] = [Format::F16, Format::Bf16];

fn tiny_bge_m3() -> ModelFolder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    ModelFolder::open(&path).unwrap()
}

fn load(folder: &ModelFolder, format: Format) -> CudaBackend {
    load_for(folder, format, 1024)
}

fn load_for(folder: &ModelFolder, format: Format, max_batch_tokens: usize) -> CudaBackend {
    let options = Options {
        pooling: folder.pooling.unwrap_or(Pooling::Cls),
        max_sequence_tokens: folder.max_sequence_tokens.min(600),
        special_token_ids: vec![0, 1, 2, 3],
        format,
        max_batch_tokens,
    };
    CudaBackend::load(folder, &simulator::open().unwrap(), 0, options).unwrap()
}

#[test]
fn it_keeps_the_contract() {
    let started = std::time::Instant::now();
    let mut backend = load(&tiny_bge_m3(), Format::F16);
    println!("{:?}", started.elapsed());
    assert_eq!(conformance::check(&mut backend), Ok(()));
    println!("{:?}", started.elapsed());
}

#[test]
fn all_heads_of_bge_m3_are_near_the_reference() {
    let folder = tiny_bge_m3();
    let lengths = [1, 2, 15, 64, 65, 130, 300];
    let batch = batch(&lengths, folder.encoder.vocabulary_size);
    let outputs = Outputs {
        token_vectors: true,
        ..Outputs::BGE_M3
    };
    let expected = candle(&folder).embed(&batch, outputs).unwrap();
    for (format, least) in [(Format::F16, 0.99999), (Format::Bf16, 0.9995)] {
        let got = load(&folder, format).embed(&batch, outputs).unwrap();
        let (dense, tokens) = least_cosines(&got, &expected);
        println!("{format:?} {dense} {tokens}");
        assert!(
            dense >= least && tokens >= least,
            "{format:?}: {dense} {tokens}"
        );
        let (a, b) = (
            got.multi_vector.unwrap(),
            expected.multi_vector.as_ref().unwrap(),
        );
        for (a, b) in a.iter().zip(b) {
            assert_eq!(a.rows(), b.rows());
            let near = (0..a.rows())
                .map(|i| cosine(a.row(i), b.row(i)))
                .fold(1.0, f64::min);
            assert!(near >= least, "{format:?}: {near}");
        }
        let (a, b) = (got.sparse.unwrap(), expected.sparse.as_ref().unwrap());
        for (a, b) in a.iter().zip(b) {
            let common = a.indices.iter().filter(|id| b.indices.contains(id)).count();
            assert!(common * 100 >= b.indices.len() * 97, "{format:?}");
        }
    }
}
