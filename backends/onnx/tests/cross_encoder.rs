//! Cross-encoders written by `convert`, against scores made by transformers and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/options.rs"]
mod options;
#[path = "../../../tests/support/rerankers.rs"]
mod rerankers;

use std::{io, path::Path};

use embedgate_core::{ModelFolder, Outputs, Precision};
use embedgate_onnx::{
    OnnxBackend, Options,
    convert::{self, ConvertError, Files, Parts, Variant},
};
use embedgate_weights::Weights;

use self::options::on_processor;

fn convert(folder: &ModelFolder, heads: Outputs, precision: Precision, to: &Path) {
    let files = Files::of(Variant::of_processor(precision)).unwrap();
    let weights = Weights::open(&folder.path, folder.words()).unwrap();
    let mut read =
        |name: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> io::Result<()>| {
            let values = weights.values(name, shape);
            let values = values.map_err(|e| ConvertError::Weights(Box::new(e)))?;
            use_them(&values).map_err(|source| ConvertError::Write {
                path: to.join(files.data),
                source,
            })
        };
    let parts = Parts {
        encoder: &folder.encoder,
        heads,
    };
    convert::write(to, Variant::of_processor(precision), parts, &mut read).unwrap();
}

fn load(name: &str, heads: Outputs, precision: Precision) -> Result<OnnxBackend, String> {
    let folder = rerankers::open(name);
    let written = tempfile::tempdir().unwrap();
    convert(&folder, heads, precision, written.path());
    let files = Files::of(Variant::of_processor(precision)).unwrap();
    let options = Options {
        max_sequence_tokens: folder.max_sequence_tokens,
        threads: 2,
        ..on_processor(written.path().join(files.model), precision)
    };
    OnnxBackend::load(&folder, options).map_err(|e| e.to_string())
}

fn scorer(name: &str, precision: Precision) -> OnnxBackend {
    load(name, Outputs::SCORE, precision).unwrap()
}

#[test]
fn scores_equal_transformers_alone_and_batched() {
    for name in rerankers::NAMES {
        rerankers::scores_equal_transformers(&mut scorer(name, Precision::F32), name);
    }
}

/// Compares scores that lie up to 6.5 apart; 32 numbers a token are few for errors to cancel out.
#[test]
fn scores_in_int8_are_near_transformers() {
    for name in rerankers::NAMES {
        let mut scorer = scorer(name, Precision::Int8);
        rerankers::scores_are_near_transformers(&mut scorer, name, 0.3);
    }
}

#[test]
fn segments_change_the_scores_of_bert() {
    rerankers::segments_change_scores(&mut scorer("bert", Precision::F32));
}

#[test]
fn cross_encoders_give_scores_alone() {
    for name in rerankers::NAMES {
        rerankers::it_gives_scores_alone(&mut scorer(name, Precision::F32));
    }
}

#[test]
fn a_model_without_logits_is_no_cross_encoder() {
    let Err(error) = load("bert", Outputs::default(), Precision::F32) else {
        panic!("an encoder without its classifier was loaded");
    };
    assert!(error.contains("model.onnx"), "{error}");
    assert!(error.contains("expected f32 or f16 logits"), "{error}");
}
