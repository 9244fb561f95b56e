//! Families that are BERT but for names and numbers, written by `convert`, against their reference libraries; and what is refused.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
#[expect(dead_code, reason = "one test asks for all families")]
mod families;
#[path = "support/options.rs"]
mod options;

use std::{io, path::Path};

use embedgate_core::{ModelFolder, Outputs, Precision};
use embedgate_onnx::{
    OnnxBackend, Options,
    convert::{self, ConvertError, Files, Parts, Variant},
};
use embedgate_weights::Weights;

use self::options::on_processor;

fn convert(folder: &ModelFolder, precision: Precision, to: &Path) -> Result<(), ConvertError> {
    let variant = Variant::of_processor(precision);
    let files = Files::of(variant).unwrap();
    let weights = Weights::open(&folder.encoder_path, folder.words()).unwrap();
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
        heads: Outputs::default(),
    };
    convert::write(to, variant, parts, &mut read)
}

fn load(name: &str, precision: Precision) -> OnnxBackend {
    let folder = families::open(name);
    let written = tempfile::tempdir().unwrap();
    convert(&folder, precision, written.path()).unwrap();
    let files = Files::of(Variant::of_processor(precision)).unwrap();
    let options = Options {
        max_sequence_tokens: folder.max_sequence_tokens,
        threads: 2,
        ..on_processor(written.path().join(files.model), precision)
    };
    OnnxBackend::load(&folder, options).unwrap()
}

#[test]
fn what_is_bert_but_for_names_is_written() {
    for name in ["distilbert", "ernie"] {
        families::results_equal_the_reference(&mut load(name, Precision::F32), name);
        let cosine = families::least_cosine(&mut load(name, Precision::Int8), name);
        assert!(cosine > 0.98, "{name} in int8: {cosine}");
    }
}

#[test]
fn what_goes_beyond_is_refused_by_what_it_has() {
    for (name, thing) in [
        ("mpnet", "a bias of attention by distance"),
        ("qwen3", "rotary positions"),
        ("modernbert", "rotary positions"),
        ("t5", "a bias of attention by distance"),
        ("albert", "embeddings of another width than its layers"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let refused = convert(&families::open(name), Precision::F32, folder.path());
        let why = refused.unwrap_err().to_string();
        assert!(why.contains(thing) && why.contains("yet"), "{name}: {why}");
    }
}
