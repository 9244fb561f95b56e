//! Query, key and value of attention as one linear layer: one product gives all three.

use super::EncoderConfig;

const PARTS: [&str; 3] = ["query", "key", "value"];

/// A linear layer of an encoder that is made of three.
#[derive(Debug, PartialEq)]
pub struct Stacked {
    /// Shape `(3 * hidden_size, hidden_size)`.
    pub weight: Vec<f32>,
    /// Of length `3 * hidden_size`.
    pub bias: Vec<f32>,
}

impl EncoderConfig {
    /// Reads query, key and value of a layer, by their names in transformers, with the rows of the query multiplied by
    /// `query_scale`. `read` gives the tensor of a name and a shape.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn stacked_qkv<E>(
        &self,
        layer: usize,
        query_scale: f32,
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Stacked, E> {
        let width = self.hidden_size;
        let mut weight = Vec::with_capacity(PARTS.len() * width * width);
        let mut bias = Vec::with_capacity(PARTS.len() * width);
        for (part, scale) in PARTS.into_iter().zip([query_scale, 1.0, 1.0]) {
            let name = format!("encoder.layer.{layer}.attention.self.{part}");
            let part_weight = read(&format!("{name}.weight"), &[width, width])?;
            let part_bias = read(&format!("{name}.bias"), &[width])?;
            weight.extend(part_weight.iter().map(|x| x * scale));
            bias.extend(part_bias.iter().map(|x| x * scale));
        }
        Ok(Stacked { weight, bias })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_comes_first_and_alone_is_scaled() {
        let text = r#"{"model_type": "bert", "vocab_size": 9, "hidden_size": 2, "num_hidden_layers": 1, "hidden_act": "gelu",
            "num_attention_heads": 1, "intermediate_size": 2, "max_position_embeddings": 9, "type_vocab_size": 1,
            "layer_norm_eps": 1e-5, "pad_token_id": 0}"#;
        let config = EncoderConfig::from_json(text).unwrap();
        let mut names = Vec::new();
        let stacked = config.stacked_qkv(7, 0.5, |name, shape| {
            names.push(name.to_owned());
            Ok::<_, ()>(vec![names.len() as f32; shape.iter().product()])
        });
        let expected = Stacked {
            weight: vec![0.5, 0.5, 0.5, 0.5, 3.0, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0],
            bias: vec![1.0, 1.0, 4.0, 4.0, 6.0, 6.0],
        };
        assert_eq!(stacked, Ok(expected));
        assert_eq!(names[2], "encoder.layer.7.attention.self.key.weight");
        assert_eq!(names[5], "encoder.layer.7.attention.self.value.bias");
        let failing = config.stacked_qkv(0, 1.0, |_, _| Err("no such tensor"));
        assert_eq!(failing, Err("no such tensor"));
    }
}
