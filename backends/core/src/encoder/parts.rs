//! The parts that encoders are made of, with the names of their tensors: tables, linear layers, normalizations.

/// Rows by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The tensor's name.
    pub name: String,
    /// The number of rows.
    pub rows: usize,
}

/// `x W^T + b`: a linear layer, whose outputs may be those of several tensors, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Numbers of an input row.
    pub inner: usize,
    /// The tensors, in the order of their outputs.
    pub parts: Vec<LinearPart>,
}

/// Outputs of a linear layer that are a tensor of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearPart {
    /// The name of the weight without `.weight`, and of the bias without `.bias`.
    pub name: String,
    /// The number of outputs.
    pub outer: usize,
    /// True where there is a bias.
    pub has_bias: bool,
}

/// The numbers of a linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearValues {
    /// Shape `(outer, inner)`, row-major.
    pub weight: Vec<f32>,
    /// Of length `outer`; zeros where the layer has none.
    pub bias: Vec<f32>,
}

impl Linear {
    /// A layer of one tensor.
    #[must_use]
    pub fn of(name: impl Into<String>, [outer, inner]: [usize; 2], has_bias: bool) -> Self {
        let name = name.into();
        let part = LinearPart {
            name,
            outer,
            has_bias,
        };
        Self {
            inner,
            parts: vec![part],
        }
    }

    /// A layer of several tensors that read the same rows. Each of `parts` has a name and its number of outputs.
    #[must_use]
    pub fn stacked<const N: usize>(
        parts: [(String, usize); N],
        inner: usize,
        has_bias: bool,
    ) -> Self {
        let parts = parts.map(|(name, outer)| LinearPart {
            name,
            outer,
            has_bias,
        });
        Self {
            inner,
            parts: parts.into(),
        }
    }

    /// Numbers of an output row.
    #[must_use]
    pub fn outer(&self) -> usize {
        self.parts.iter().map(|part| part.outer).sum()
    }

    /// Returns the name of the layer in messages: that of its first tensor.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts.first().map_or("", |part| &part.name)
    }

    /// Reads the layer. `read` gives the tensor of a name and a shape.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read<E>(
        &self,
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<LinearValues, E> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for LinearPart {
            name,
            outer,
            has_bias,
        } in &self.parts
        {
            let rows = read(&format!("{name}.weight"), &[*outer, self.inner])?;
            if weight.is_empty() {
                weight = rows;
                weight.reserve_exact((self.outer() - outer) * self.inner);
            } else {
                weight.extend(rows);
            }
            match has_bias {
                true => bias.extend(read(&format!("{name}.bias"), &[*outer])?),
                false => bias.resize(bias.len() + outer, 0.0),
            }
        }
        Ok(LinearValues { weight, bias })
    }
}

impl LinearValues {
    /// Multiplies the first `n` outputs.
    pub fn scale_first(&mut self, n: usize, factor: f32) {
        let inner = self.weight.len() / self.bias.len().max(1);
        let weights = self.weight[..n * inner].iter_mut();
        weights
            .chain(&mut self.bias[..n])
            .for_each(|x| *x *= factor);
    }
}

/// A normalization of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// The kind.
    pub kind: NormKind,
    /// The name of the weight without `.weight`, and of the bias without `.bias`.
    pub name: String,
    /// Numbers that are normalized together.
    pub width: usize,
    /// Added to the variance, or to the mean of squares.
    pub eps: f32,
    /// True where there is a bias.
    pub has_bias: bool,
    /// Added to the weight: 1 in Gemma, whose weights are differences from 1.
    pub weight_offset: f32,
}

/// The kinds of normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(variance + eps) * weight + bias`.
    Layer,
    /// `x / sqrt(mean of squares + eps) * weight`.
    Rms,
}

/// The numbers of a normalization.
#[derive(Clone, Debug, PartialEq)]
pub struct NormValues {
    /// Of the normalization's width.
    pub weight: Vec<f32>,
    /// Of the normalization's width; zeros where it has none.
    pub bias: Vec<f32>,
}

impl Norm {
    /// A layer normalization with a bias.
    #[must_use]
    pub fn layer(name: impl Into<String>, width: usize, eps: f32) -> Self {
        Self {
            kind: NormKind::Layer,
            name: name.into(),
            width,
            eps,
            has_bias: true,
            weight_offset: 0.0,
        }
    }

    /// A normalization by the root of the mean of squares.
    #[must_use]
    pub fn rms(name: impl Into<String>, width: usize, eps: f32) -> Self {
        Self {
            kind: NormKind::Rms,
            has_bias: false,
            ..Self::layer(name, width, eps)
        }
    }

    /// Reads the normalization. `read` gives the tensor of a name and a shape.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read<E>(
        &self,
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<NormValues, E> {
        let shape = [self.width];
        let mut weight = read(&format!("{}.weight", self.name), &shape)?;
        weight.iter_mut().for_each(|x| *x += self.weight_offset);
        let bias = match self.has_bias {
            true => read(&format!("{}.bias", self.name), &shape)?,
            false => vec![0.0; self.width],
        };
        Ok(NormValues { weight, bias })
    }
}

impl NormValues {
    /// Multiplies all that the normalization gives.
    pub fn scale(&mut self, factor: f32) {
        let all = self.weight.iter_mut().chain(&mut self.bias);
        all.for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_stacked_in_their_order_and_a_missing_bias_is_zeros() {
        let mut linear = Linear::stacked([("q".into(), 2), ("k".into(), 1)], 2, true);
        linear.parts[1].has_bias = false;
        assert_eq!((linear.outer(), linear.name()), (3, "q"));
        let mut names = Vec::new();
        let values = linear.read(|name, shape| {
            names.push(name.to_owned());
            Ok::<_, ()>(vec![names.len() as f32; shape.iter().product()])
        });
        let mut values = values.unwrap();
        assert_eq!(values.weight, [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]);
        assert_eq!(values.bias, [2.0, 2.0, 0.0]);
        assert_eq!(names, ["q.weight", "q.bias", "k.weight"]);
        values.scale_first(2, 0.5);
        assert_eq!(values.weight, [0.5, 0.5, 0.5, 0.5, 3.0, 3.0]);
        assert_eq!(values.bias, [1.0, 1.0, 0.0]);
        assert_eq!(linear.read(|_, _| Err("none")), Err("none"));
    }

    #[test]
    fn a_weight_that_is_a_difference_from_one_gets_its_one() {
        let norm = Norm {
            weight_offset: 1.0,
            ..Norm::rms("norm", 2, 1e-6)
        };
        let values = norm.read(|_, _| Ok::<_, ()>(vec![0.5, -0.5])).unwrap();
        assert_eq!((values.weight, values.bias), (vec![1.5, 0.5], vec![0.0; 2]));
    }
}
