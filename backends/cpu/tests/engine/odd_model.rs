//! A model whose sizes fit no vector register, tile or block, on other numbers of threads, and with a number that is none.

use std::{fs, path::Path};

use embedgate_core::{Backend, Head, ModelFolder, Outputs, TokenBatch};
use safetensors::{Dtype, tensor::TensorView};

use crate::{
    precisions::{precisions, promised},
    reference::{batch, candle, least_cosines},
    support::load_on,
};

/// Heads of 26 numbers.
const HEADS: usize = 12;
const WIDTH: usize = 312;
const FEED_FORWARD: usize = 600;
const VOCABULARY: usize = 90;
const POSITIONS: usize = 1200;

/// Writes the model: BERT, two layers, pseudo-random weights of a usual size. The last id's numbers are so large that
/// their sum is none.
fn write(folder: &Path) -> ModelFolder {
    let config = format!(
        r#"{{"model_type": "bert", "hidden_size": {WIDTH}, "num_attention_heads": {HEADS}, "num_hidden_layers": 2,
        "intermediate_size": {FEED_FORWARD}, "vocab_size": {VOCABULARY}, "max_position_embeddings": {POSITIONS},
        "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}}"#
    );
    fs::write(folder.join("config.json"), config).unwrap();
    let mut tensors = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![VOCABULARY, WIDTH],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![POSITIONS, WIDTH],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, WIDTH],
        ),
        ("embeddings.LayerNorm.weight".to_owned(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![WIDTH]),
    ];
    for layer in 0..2 {
        let mut linear = |part: &str, outputs: usize, inputs: usize| {
            let name = format!("encoder.layer.{layer}.{part}");
            tensors.push((format!("{name}.weight"), vec![outputs, inputs]));
            tensors.push((format!("{name}.bias"), vec![outputs]));
        };
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(&format!("attention.{part}"), WIDTH, WIDTH);
        }
        linear("intermediate.dense", FEED_FORWARD, WIDTH);
        linear("output.dense", WIDTH, FEED_FORWARD);
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            for end in ["weight", "bias"] {
                let name = format!("encoder.layer.{layer}.{part}.{end}");
                tensors.push((name, vec![WIDTH]));
            }
        }
    }
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, shape)| numbers(name, shape))
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (
            name.clone(),
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    ModelFolder::open(folder).unwrap()
}

fn numbers(name: &str, shape: &[usize]) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut state = name.bytes().fold(7_u32, |all, byte| {
        all.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values: Vec<f32> = if name.ends_with("LayerNorm.weight") {
        (0..n).map(|_| 1.0 + 0.1 * next()).collect()
    } else {
        (0..n).map(|_| 0.1 * next()).collect()
    };
    if name == "embeddings.word_embeddings.weight" {
        values[(VOCABULARY - 1) * WIDTH..].fill(f32::MAX);
    }
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn outputs() -> Outputs {
    Outputs::DENSE.with(Head::TokenVectors)
}

/// Up to more than two tiles of keys, none of them whole.
const LENGTHS: [usize; 8] = [1, 3, 17, 130, 515, 1030, 64, 2];

#[test]
fn sizes_that_fit_nothing_are_near_the_reference_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = write(folder.path());
    let batch = batch(&LENGTHS, VOCABULARY - 1);
    let expected = candle(&folder).embed(&batch, outputs()).unwrap();
    for (precision, dense, tokens) in promised() {
        let mut first = None;
        for threads in [1, 2, 3, 5] {
            let got = load_on(threads, &folder, precision)
                .embed(&batch, outputs())
                .unwrap();
            let (d, t) = least_cosines(&got, &expected);
            assert!(
                d >= dense && t >= tokens,
                "{precision} on {threads} threads: {d} {t}"
            );
            let same = first.get_or_insert_with(|| got.clone()) == &got;
            assert!(same, "{precision} on {threads} threads differs from one");
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_in_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let folder = write(folder.path());
    let all = batch(&LENGTHS, VOCABULARY - 1);
    for precision in precisions() {
        let mut backend = load_on(2, &folder, precision);
        let together = backend.embed(&all, outputs()).unwrap();
        for i in 0..all.len() {
            let one: TokenBatch = [all.sequence(i).ids].into_iter().collect();
            let alone = backend.embed(&one, outputs()).unwrap();
            let of = |batch: &embedgate_core::EmbeddingBatch, i: usize| {
                let dense = batch.vectors(Head::Dense).unwrap().row(i).to_vec();
                (dense, batch.rows(Head::TokenVectors).unwrap()[i].clone())
            };
            assert_eq!(of(&alone, 0), of(&together, i), "{precision}: sequence {i}");
        }
    }
}

#[test]
fn a_number_that_is_none_stays_in_its_sequence_and_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let folder = write(folder.path());
    let bad = u32::try_from(VOCABULARY - 1).unwrap();
    let (good, bad): (Vec<u32>, Vec<u32>) = ((1..40).collect(), vec![5, bad, 7]);
    let clean: TokenBatch = [good.as_slice(), &good].into_iter().collect();
    let mixed: TokenBatch = [good.as_slice(), &bad, &good].into_iter().collect();
    for precision in precisions() {
        let mut backend = load_on(2, &folder, precision);
        let dense = |backend: &mut dyn Backend, batch: &TokenBatch| {
            backend
                .embed(batch, Outputs::DENSE)
                .unwrap()
                .vectors(Head::Dense)
                .unwrap()
                .clone()
        };
        let expected = dense(&mut backend, &clean);
        let got = dense(&mut backend, &mixed);
        assert!(
            got.row(1).iter().any(|x| x.is_nan()),
            "{precision}: {:?}",
            &got.row(1)[..4]
        );
        for i in [0, 2] {
            assert_eq!(got.row(i), expected.row(0), "{precision}: row {i}");
        }
        assert_eq!(
            dense(&mut backend, &clean),
            expected,
            "{precision}: afterwards"
        );
    }
}
