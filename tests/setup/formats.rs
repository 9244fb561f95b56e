//! Weights in every file format.

use std::path::Path;

use embedgate_core::{ModelFolder, Outputs};
use embedgate_test_support::{texts, tiny_bge_m3};

use crate::{
    backends::{candle, tokenizer},
    reference::run,
};

#[test]
fn the_same_weights_in_every_file_format_give_the_same_vectors() {
    // Re-written from the one checkpoint: safetensors in one file, and in two shards with an index.
    let words = "embeddings.word_embeddings.weight";
    let source = embedgate_weights::Weights::open(&tiny_bge_m3(), words).unwrap();
    let (mut expected, folder) = candle(&tiny_bge_m3());
    let tokenizer = tokenizer(&folder);
    let expected = run(
        expected.as_mut(),
        &tokenizer,
        &texts()[..20],
        20,
        Outputs::BGE_M3,
    );
    for sharded in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_without_weights(&tiny_bge_m3(), copy.path());
        write_safetensors(&source, &folder, copy.path(), sharded);
        let (mut backend, _) = candle(copy.path());
        let got = run(
            backend.as_mut(),
            &tokenizer,
            &texts()[..20],
            20,
            Outputs::BGE_M3,
        );
        assert!(got == expected, "sharded: {sharded}");
    }
}

fn copy_without_weights(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            std::fs::create_dir(to.join(name)).unwrap();
            copy_without_weights(&path, &to.join(name));
        } else if name != "pytorch_model.bin" {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Writes the encoder's tensors under the prefix `roberta.`, as a checkpoint of a model with a task's head has them.
fn write_safetensors(
    source: &embedgate_weights::Weights,
    folder: &ModelFolder,
    to: &Path,
    sharded: bool,
) {
    let e = &folder.encoder;
    let (d, f) = (e.hidden_size, e.feed_forward.size);
    let positions = e.embeddings.positions.as_ref().unwrap().table.rows;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".into(),
            vec![e.vocabulary_size(), d],
        ),
        (
            "embeddings.position_embeddings.weight".into(),
            vec![positions, d],
        ),
        (
            "embeddings.token_type_embeddings.weight".into(),
            vec![e.n_segments(), d],
        ),
        ("embeddings.LayerNorm.weight".into(), vec![d]),
        ("embeddings.LayerNorm.bias".into(), vec![d]),
    ];
    for i in 0..e.layers.len() {
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            shapes.push((
                format!("encoder.layer.{i}.{name}.weight"),
                vec![outputs, inputs],
            ));
            shapes.push((format!("encoder.layer.{i}.{name}.bias"), vec![outputs]));
        };
        for name in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ] {
            linear(name, d, d);
        }
        linear("intermediate.dense", f, d);
        linear("output.dense", d, f);
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{i}.{name}.weight"), vec![d]));
            shapes.push((format!("encoder.layer.{i}.{name}.bias"), vec![d]));
        }
    }
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = source.values(&name, &shape).unwrap();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (format!("roberta.{name}"), shape, bytes)
        })
        .collect();
    let serialize = |tensors: &[(String, Vec<usize>, Vec<u8>)], name: &str| {
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (
                name,
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                    .unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &to.join(name)).unwrap();
    };
    if !sharded {
        serialize(&tensors, "model.safetensors");
        return;
    }
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (part, name) in [
        (first, "model-00001-of-00002.safetensors"),
        (second, "model-00002-of-00002.safetensors"),
    ] {
        serialize(part, name);
        map.extend(
            part.iter()
                .map(|(tensor, ..)| (tensor.clone(), name.into())),
        );
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(to.join("model.safetensors.index.json"), index.to_string()).unwrap();
}
