//! One layer of an encoder: attention, then a feed-forward layer, each with the normalizations around it.

use std::sync::Arc;

use super::{
    distance_vectors::DistanceVectors,
    experts::Experts,
    parts::{Linear, LinearValues, Norm, NormValues},
    positions::{DistanceBias, Rotary},
};

/// The shape of attention, which all layers share.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values; divides `n_heads`: neighbouring heads of queries share one.
    pub n_key_heads: usize,
    /// Numbers of a head.
    pub head_size: usize,
    /// The factor of scores before the softmax.
    pub scale: f32,
    /// A number that is added to each score, by distance.
    pub bias: Option<DistanceBias>,
    /// Vectors that are scored beside those of tokens, by distance.
    pub vectors: Option<DistanceVectors>,
}

impl Attention {
    /// Attention of so many heads, each with keys and values of its own, without a bias.
    #[must_use]
    pub fn of_heads(n_heads: usize, head_size: usize) -> Self {
        Self {
            n_heads,
            n_key_heads: n_heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            bias: None,
            vectors: None,
        }
    }

    /// Numbers of a token's queries.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.n_heads * self.head_size
    }

    /// Numbers of a token's keys, and of its values.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.n_key_heads * self.head_size
    }

    /// Numbers of a token's queries, keys and values.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.key_width()
    }
}

/// The shape of feed-forward layers: `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// Numbers of a row that `down` reads.
    pub size: usize,
    /// The activation.
    pub activation: Activation,
    /// The half of `up`'s outputs that goes through the activation; none where all do.
    pub gate: Option<Gate>,
}

impl FeedForward {
    /// Numbers of a row that `up` gives.
    #[must_use]
    pub fn up_width(&self) -> usize {
        match self.gate {
            Some(_) => 2 * self.size,
            None => self.size,
        }
    }
}

/// The half of a row that goes through the activation, and is multiplied with the other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The first half.
    First,
    /// The second half.
    Second,
}

/// The activation of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / 2 (1 + erf(x / sqrt 2))`, which transformers calls `gelu`.
    Gelu,
    /// The tanh approximation, which transformers calls `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + exp(-x))`, which transformers calls `silu` or `swish`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// The normalizations around attention or around the feed-forward layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Norms {
    /// `x = norm(x + f(x))`.
    After(Norm),
    /// `x = then(x + first(x + f(x)))`.
    Twice {
        /// Of the sum with what the layer gives.
        first: Norm,
        /// Of the sum with that.
        then: Norm,
    },
    /// `x = x + after(f(before(x)))`, without those that are none.
    Before {
        /// Of what the layer reads.
        before: Option<Norm>,
        /// Of what the layer gives.
        after: Option<Norm>,
    },
}

/// The tokens around a token that it sees, beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Tokens before it; none: all.
    pub before: Option<usize>,
    /// Tokens after it; none: all.
    pub after: Option<usize>,
}

impl Reach {
    /// Returns true when a token sees all others.
    #[must_use]
    pub fn is_all(self) -> bool {
        self == Self::default()
    }

    /// The tokens that the token at place `at` of a sequence of `n` tokens sees.
    #[must_use]
    pub fn of(self, at: usize, n: usize) -> std::ops::Range<usize> {
        let first = self.before.map_or(0, |before| at.saturating_sub(before));
        let end = self
            .after
            .map_or(n, |after| at.saturating_add(after).saturating_add(1).min(n));
        first..end
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The normalizations around attention.
    pub attention_norms: Norms,
    /// Queries, then keys, then values.
    pub qkv: Linear,
    /// Of queries, before the rotation: each run of its width by itself.
    pub query_norm: Option<Norm>,
    /// Of keys, before the rotation: each run of its width by itself.
    pub key_norm: Option<Norm>,
    /// The rotation of queries and keys.
    pub rotary: Option<Arc<Rotary>>,
    /// The tokens that each token sees.
    pub reach: Reach,
    /// The layer behind attention.
    pub out: Linear,
    /// The normalizations around the feed-forward layer.
    pub feed_forward_norms: Norms,
    /// The first layer of the feed-forward layer.
    pub up: Linear,
    /// The second.
    pub down: Linear,
    /// Where there are several feed-forward layers, of which each token goes through some.
    pub experts: Option<Experts>,
}

impl Layer {
    /// The beginning that the names of all its tensors have in common, to a dot.
    #[must_use]
    pub fn prefix(&self) -> &str {
        let linears = [&self.qkv, &self.out, &self.up, &self.down];
        let mut names = linears.into_iter().flat_map(|linear| &linear.parts);
        let first = names.next().map_or("", |part| part.name.as_str());
        let common = names.fold(first.len(), |n, part| {
            let same = first.bytes().zip(part.name.bytes()).take(n);
            same.take_while(|(a, b)| a == b).count()
        });
        first[..common].rfind('.').map_or("", |dot| &first[..=dot])
    }

    /// Reads queries, keys and values as one layer. Scores of its queries are `scale` times those of the tensors, where no
    /// normalization follows.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read_qkv<E>(
        &self,
        attention: &Attention,
        scale: f32,
        read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<LinearValues, E> {
        let mut values = self.qkv.read(read)?;
        if self.query_norm.is_none() {
            values.scale_first(attention.query_width(), scale);
        }
        Ok(values)
    }

    /// Reads queries and keys as one layer, without values. Scores of its queries are `scale` times those of the tensors.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read_query_key<E>(
        &self,
        attention: &Attention,
        scale: f32,
        read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<LinearValues, E> {
        let source = Linear {
            inner: self.qkv.inner,
            parts: self.qkv.parts.iter().take(2).cloned().collect(),
        };
        let mut values = source.read(read)?;
        values.scale_first(attention.query_width(), scale);
        Ok(values)
    }

    /// Reads the normalization of queries. Scores of its queries are `scale` times those of the tensors.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read_query_norm<E>(
        &self,
        scale: f32,
        read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Option<NormValues>, E> {
        let values = self.query_norm.as_ref().map(|norm| norm.read(read));
        let mut values = values.transpose()?;
        if let Some(values) = &mut values {
            values.scale(scale);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_sees_what_its_reach_says() {
        let all = Reach::default();
        assert!(all.is_all() && all.of(3, 9) == (0..9));
        let causal = Reach {
            before: None,
            after: Some(0),
        };
        assert!(!causal.is_all() && causal.of(3, 9) == (0..4));
        let window = Reach {
            before: Some(2),
            after: Some(2),
        };
        assert_eq!(window.of(0, 9), 0..3);
        assert_eq!(window.of(5, 9), 3..8);
        assert_eq!(window.of(8, 9), 6..9);
    }
}
