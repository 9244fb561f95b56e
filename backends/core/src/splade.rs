//! SPLADE: one weight for each token of the vocabulary, from what a masked language model expects at each place.

use crate::SparseVector;

/// The pooling of a masked language model's logits: `log(1 + relu(x))`, the largest or the sum of all places.
///
/// Source: sentence-transformers 6.2, `sparse_encoder/modules/splade_pooling.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpladePooling {
    /// The way in which places become one.
    pub strategy: SpladeStrategy,
    /// True where the logarithm is taken twice.
    pub is_twice: bool,
}

/// The way in which the places of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpladeStrategy {
    /// The largest counts.
    Max,
    /// All are added.
    Sum,
}

impl SpladePooling {
    /// Adds rows of logits, of shape `(places, vocabulary)`, to what was pooled of a sequence until now, zeros at first.
    ///
    /// # Panics
    /// When `pooled` is empty.
    pub fn add(self, pooled: &mut [f32], logits: &[f32]) {
        for row in logits.chunks_exact(pooled.len()) {
            match self.strategy {
                // The logarithm keeps the order: one of the largest is enough.
                SpladeStrategy::Max => {
                    for (most, x) in pooled.iter_mut().zip(row) {
                        // A NaN must reach the caller's check, so it wins over every number.
                        if *x > *most || x.is_nan() {
                            *most = *x;
                        }
                    }
                }
                SpladeStrategy::Sum => {
                    for (sum, x) in pooled.iter_mut().zip(row) {
                        *sum += self.weight(*x);
                    }
                }
            }
        }
    }

    /// Returns the weights above 0 of what was pooled.
    #[must_use]
    pub fn finish(self, pooled: &[f32]) -> SparseVector {
        let weights = pooled.iter().map(|x| match self.strategy {
            SpladeStrategy::Max => self.weight(*x),
            SpladeStrategy::Sum => *x,
        });
        let kept = (0_u32..)
            .zip(weights)
            .filter(|(_, weight)| *weight > 0.0 || weight.is_nan());
        let (indices, values) = kept.unzip();
        SparseVector { indices, values }
    }

    fn weight(self, logit: f32) -> f32 {
        // Not max, which would lose a NaN.
        let positive = if logit < 0.0 { 0.0 } else { logit };
        let weight = positive.ln_1p();
        if self.is_twice {
            weight.ln_1p()
        } else {
            weight
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_one_weight_for_each_token_of_the_vocabulary() {
        let logits = [1.0, -2.0, 0.0, 3.0, -1.0, 0.0];
        let of = |strategy, is_twice| {
            let pooling = SpladePooling { strategy, is_twice };
            let mut pooled = [0.0; 3];
            logits
                .chunks(3)
                .for_each(|row| pooling.add(&mut pooled, row));
            pooling.finish(&pooled)
        };
        let most = of(SpladeStrategy::Max, false);
        assert_eq!((most.indices, most.values), (vec![0], vec![4.0_f32.ln()]));
        let twice = of(SpladeStrategy::Max, true);
        assert_eq!(twice.values, [4.0_f32.ln().ln_1p()]);
        let sum = of(SpladeStrategy::Sum, false);
        assert_eq!(sum.values, [2.0_f32.ln() + 4.0_f32.ln()]);
    }

    #[test]
    fn a_nan_is_kept() {
        for strategy in [SpladeStrategy::Max, SpladeStrategy::Sum] {
            let pooling = SpladePooling {
                strategy,
                is_twice: false,
            };
            let mut pooled = [0.0];
            pooling.add(&mut pooled, &[f32::NAN, 1.0]);
            pooling.add(&mut pooled, &[f32::NAN]);
            assert!(pooling.finish(&pooled).values[0].is_nan());
        }
    }
}
