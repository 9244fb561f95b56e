//! A mixture of experts: feed-forward layers of which each token goes through some.

use super::{Linear, LinearValues};

/// Feed-forward layers of which each token goes through some. The shapes are those of the layer's `up` and `down`, for each expert.
///
/// Source: nomic-ai's `modeling_hf_nomic_bert.py` of nomic-bert-2048, in its form for mixtures of experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Gives each token a logit for each expert.
    pub router: Linear,
    /// Experts that a token goes through: those with the largest logits. Each counts by its probability among all of them.
    pub n_chosen: usize,
    /// The name of a number that is added to each column of their sum.
    pub bias: String,
}

/// The numbers of all experts.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertValues {
    /// Each expert's first and second layer.
    pub layers: Vec<[LinearValues; 2]>,
    /// Is added to their sum.
    pub bias: Vec<f32>,
}

impl Experts {
    /// Reads the experts of a layer whose first and second layer are these. `read` gives the tensor of a name and a shape: of both
    /// it is one for all experts, with a row for each number between the layers.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read<E>(
        &self,
        [up, down]: [&Linear; 2],
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<ExpertValues, E> {
        let (n, size, width) = (self.router.outer(), up.outer(), up.inner);
        let ups = read(up.name(), &[n * size, width])?;
        let downs = read(down.name(), &[n * size, width])?;
        let layers = ups
            .chunks_exact(size * width)
            .zip(downs.chunks_exact(size * width));
        Ok(ExpertValues {
            layers: layers
                .map(|(up, down)| {
                    let columns =
                        (0..width).flat_map(|column| down[column..].iter().step_by(width));
                    let of = |weight, outer| LinearValues {
                        weight,
                        bias: vec![0.0; outer],
                    };
                    [of(up.to_vec(), size), of(columns.copied().collect(), width)]
                })
                .collect(),
            bias: read(&self.bias, &[width])?,
        })
    }

    /// The experts that a token goes through, each with what it counts, by the token's logits.
    #[must_use]
    pub fn chosen(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f32 = powers.iter().sum();
        let mut all: Vec<(usize, f32)> =
            powers.iter().map(|power| power / sum).enumerate().collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        all.truncate(self.n_chosen);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_layers_are_transposed_and_the_likeliest_are_chosen() {
        let experts = Experts {
            router: Linear::of("router", [2, 3], false),
            n_chosen: 1,
            bias: "bias".into(),
        };
        let (up, down) = (
            Linear::of("w1", [2, 3], false),
            Linear::of("w2", [3, 2], false),
        );
        let read = |_: &str, shape: &[usize]| {
            let n: usize = shape.iter().product();
            Ok::<_, ()>((0..n).map(|i| i as f32).collect())
        };
        let values = experts.read([&up, &down], read).unwrap();
        let [up, down] = &values.layers[1];
        assert_eq!(up.weight, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(down.weight, [6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
        assert_eq!(values.bias, [0.0, 1.0, 2.0]);
        let chosen = experts.chosen(&[0.0, 3.0_f32.ln()]);
        assert_eq!(chosen.len(), 1);
        assert!(chosen[0].0 == 1 && (chosen[0].1 - 0.75).abs() < 1e-6);
    }
}
