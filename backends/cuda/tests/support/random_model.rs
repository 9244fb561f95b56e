//! Models of any size, with weights at random.

use std::{fs, path::Path};

use embedgate_core::ModelFolder;
use safetensors::{Dtype, tensor::TensorView};

/// Sizes of a model.
pub(crate) struct Sizes {
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) feed_forward: usize,
    pub(crate) activation: &'static str,
}

pub(crate) const VOCABULARY: usize = 90;
const POSITIONS: usize = 600;

/// Writes a BERT of these sizes, with pseudo-random weights of a usual size.
pub(crate) fn write(folder: &Path, sizes: &Sizes) -> ModelFolder {
    let width = sizes.n_heads * sizes.head_size;
    let config = serde_json::json!({
        "model_type": "bert", "hidden_size": width, "num_attention_heads": sizes.n_heads, "num_hidden_layers": sizes.n_layers,
        "intermediate_size": sizes.feed_forward, "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12, "hidden_act": sizes.activation,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, rows) in [
        ("word", VOCABULARY),
        ("position", POSITIONS),
        ("token_type", 2),
    ] {
        shapes.push((
            format!("embeddings.{name}_embeddings.weight"),
            vec![rows, width],
        ));
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..sizes.n_layers {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        let mut linear = |part: &str, outer: usize, inner: usize| {
            shapes.push((format!("{}.weight", at(part)), vec![outer, inner]));
            shapes.push((format!("{}.bias", at(part)), vec![outer]));
        };
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(&format!("attention.{part}"), width, width);
        }
        linear("intermediate.dense", sizes.feed_forward, width);
        linear("output.dense", width, sizes.feed_forward);
        norms.extend([at("attention.output.LayerNorm"), at("output.LayerNorm")]);
    }
    for norm in norms {
        shapes.push((format!("{norm}.weight"), vec![width]));
        shapes.push((format!("{norm}.bias"), vec![width]));
    }
    save(folder, shapes);
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    ModelFolder::open(folder).unwrap()
}

/// Writes tensors of these shapes.
fn save(folder: &Path, shapes: Vec<(String, Vec<usize>)>) {
    let mut state = 7_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let n = shape.iter().product();
            // Norms are about 1, sums of products are about as large as what is multiplied.
            let (center, spread) = match name.as_str() {
                name if name.ends_with("LayerNorm.weight") => (1.0, 0.1),
                name if name.ends_with("bias") => (0.0, 0.1),
                _ => (0.0, 1.7 / (*shape.last().unwrap() as f32).sqrt()),
            };
            let bytes = (0..n).flat_map(|_| (center + spread * next()).to_le_bytes());
            let bytes = bytes.collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (
            name.clone(),
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// Makes the first number of a tensor another.
pub(crate) fn change(folder: &Path, name: &str, number: f32) {
    let file = folder.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().as_ptr();
    let at = data as usize - bytes.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    fs::write(&file, bytes).unwrap();
}
