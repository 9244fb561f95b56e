//! Normalizations of rows.

use embedgate_core::{
    encoder::NormKind,
    math::{Fused, multiply_add, sum, vectorized},
};

/// The weight and the bias of a normalization.
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

impl Norm {
    /// `x = norm(x)`, row by row.
    ///
    /// Mean and variance are taken in two passes over the row, as PyTorch's are: the difference of squares would lose
    /// digits where the mean is large.
    pub(crate) fn apply(&self, x: &mut [f32]) {
        vectorized(
            #[inline(always)]
            |fused| {
                for row in x.chunks_exact_mut(self.width()) {
                    self.normalize(row, fused);
                }
            },
        );
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.weight.len()
    }

    /// `row = norm(row)`.
    #[inline(always)]
    pub(super) fn normalize(&self, row: &mut [f32], fused: Fused) {
        match self.kind {
            NormKind::Layer => self.layer(row, fused),
            NormKind::Rms => self.rms(row),
        }
    }

    #[inline(always)]
    fn rms(&self, row: &mut [f32]) {
        let squares = sum(row, |x| x * x) / row.len() as f32;
        let scale = 1.0 / (squares + self.eps).sqrt();
        for (x, weight) in row.iter_mut().zip(&self.weight) {
            *x = *x * scale * weight;
        }
    }

    #[inline(always)]
    fn layer(&self, row: &mut [f32], fused: Fused) {
        let n = row.len() as f32;
        let mean = sum(row, |x| x) / n;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
        let scale = 1.0 / (variance + self.eps).sqrt();
        for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = multiply_add((*x - mean) * scale, *weight, *bias, fused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normalized() {
        let norm = Norm {
            kind: NormKind::Layer,
            weight: vec![2.0; 40],
            bias: vec![1.0; 40],
            eps: 1e-5,
        };
        let mut x: Vec<f32> = (0..80).map(|i| (i * i % 17) as f32).collect();
        let sums: Vec<f64> = x.iter().copied().map(f64::from).collect();
        norm.apply(&mut x);
        for (row, sums) in x.chunks(40).zip(sums.chunks(40)) {
            let mean = sums.iter().sum::<f64>() / 40.0;
            let variance = sums.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 40.0;
            for (x, s) in row.iter().zip(sums) {
                let expected = (s - mean) / (variance + 1e-5).sqrt() * 2.0 + 1.0;
                assert!((f64::from(*x) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rows_are_divided_by_the_root_of_their_mean_square() {
        let norm = Norm {
            kind: NormKind::Rms,
            weight: vec![2.0; 4],
            bias: vec![0.0; 4],
            eps: 1e-6,
        };
        let mut x = [1.0, -1.0, 3.0, 5.0];
        norm.apply(&mut x);
        for (x, of) in x.iter().zip([1.0, -1.0, 3.0, 5.0]) {
            assert!((x - 2.0 * of / 3.0).abs() < 1e-6);
        }
    }
}
