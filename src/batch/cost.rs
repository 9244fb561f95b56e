//! The cost of a batch: the time that a backend is predicted to take for it.
//!
//! The prediction is a plane fitted to a few measured batches, scaled by what the batches since then really took.

mod fit;

use embedgate_core::Layout;

/// The weight of one more observation in the running scale.
const LEARNING_RATE: f64 = 0.1;

/// The size of a batch, in the terms that its cost depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchShape {
    /// Number of sequences.
    pub n: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// Tokens of all.
    pub tokens: usize,
    /// Sum of the squares of the lengths.
    pub squares: usize,
}

impl BatchShape {
    /// The shape with one more sequence of so many tokens.
    #[must_use]
    pub(crate) fn with(self, length: usize) -> Self {
        Self {
            n: self.n + 1,
            longest: self.longest.max(length),
            tokens: self.tokens + length,
            squares: self.squares + length * length,
        }
    }

    /// Tokens that the backend computes: with padding, where it pads.
    #[must_use]
    pub(crate) fn computed_tokens(self, layout: Layout) -> usize {
        match layout {
            Layout::Padded => self.longest * self.n,
            Layout::Packed => self.tokens,
        }
    }

    fn computed_squares(self, layout: Layout) -> usize {
        match layout {
            Layout::Padded => self.longest * self.longest * self.n,
            Layout::Packed => self.squares,
        }
    }
}

impl FromIterator<usize> for BatchShape {
    fn from_iter<T: IntoIterator<Item = usize>>(lengths: T) -> Self {
        lengths.into_iter().fold(Self::default(), Self::with)
    }
}

/// Predicts the seconds of a batch: `fixed + per_token * tokens + per_square * squares`, all of computed tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CostModel {
    layout: Layout,
    fixed: f64,
    per_token: f64,
    per_square: f64,
    /// The time of recent batches in proportion to the fit: the machine may be busier now, or less.
    scale: f64,
}

impl CostModel {
    /// Makes a model of known coefficients, in seconds.
    #[must_use]
    pub(crate) fn new(layout: Layout, [fixed, per_token, per_square]: [f64; 3]) -> Self {
        Self {
            layout,
            fixed,
            per_token,
            per_square,
            scale: 1.0,
        }
    }

    /// The coefficients `fixed`, `per_token`, `per_square` in seconds.
    #[cfg(test)]
    fn coefficients(&self) -> [f64; 3] {
        [self.fixed, self.per_token, self.per_square]
    }

    /// The seconds that a batch of this shape is predicted to take.
    #[must_use]
    pub(crate) fn seconds(&self, shape: BatchShape) -> f64 {
        let tokens = shape.computed_tokens(self.layout) as f64;
        let squares = shape.computed_squares(self.layout) as f64;
        self.scale * (self.fixed + self.per_token * tokens + self.per_square * squares)
    }

    /// Tokens of the longest sequence that alone is predicted to take no longer; 1 where even that one does.
    #[must_use]
    pub(crate) fn longest_within(&self, seconds: f64) -> usize {
        let fits = |tokens: usize| self.seconds(BatchShape::default().with(tokens)) <= seconds;
        // No model takes a sequence of so many tokens.
        let (mut fitting, mut above) = (1_usize, 1_usize << 20);
        while above - fitting > 1 {
            let middle = fitting.midpoint(above);
            if fits(middle) {
                fitting = middle;
            } else {
                above = middle;
            }
        }
        fitting
    }

    /// Returns the layout of a batch in memory.
    #[must_use]
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Learns from a batch that took so many seconds.
    pub(crate) fn observe(&mut self, shape: BatchShape, seconds: f64) {
        let predicted = self.seconds(shape);
        if predicted > 0.0 && seconds.is_finite() {
            // One strange batch, such as one during which the machine slept, must not count for more than others.
            let ratio = (seconds / predicted).clamp(0.25, 4.0);
            self.scale = (self.scale * ratio.powf(LEARNING_RATE)).clamp(0.01, 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Vec<BatchShape> {
        [(1, 16), (1, 128), (2, 128), (8, 128), (1, 512), (4, 512)]
            .map(|(n, length)| std::iter::repeat_n(length, n).collect())
            .to_vec()
    }

    #[test]
    fn a_plane_is_found_again_from_its_points() {
        for layout in [Layout::Packed, Layout::Padded] {
            let truth = CostModel::new(layout, [5e-3, 2e-4, 3e-8]);
            let points: Vec<_> = shapes().iter().map(|s| (*s, truth.seconds(*s))).collect();
            let found = CostModel::fit(layout, &points).coefficients();
            for (found, truth) in found.iter().zip(truth.coefficients()) {
                assert!((found / truth - 1.0).abs() < 1e-6, "{found} {truth}");
            }
        }
    }

    #[test]
    fn the_longest_sequence_within_a_time_is_found() {
        let model = CostModel::new(Layout::Packed, [0.01, 1e-3, 1e-6]);
        // 0.01 + 0.1 + 0.01 seconds.
        assert_eq!(model.longest_within(0.12 + 1e-9), 100);
        assert_eq!(model.longest_within(0.001), 1);
    }

    #[test]
    fn few_or_odd_points_still_give_a_model_without_negative_terms() {
        let shrinking = [(shapes()[3], 0.1), (shapes()[0], 0.5), (shapes()[4], 0.2)];
        for points in [&shrinking[..0], &shrinking[..1], &shrinking[..]] {
            let model = CostModel::fit(Layout::Packed, points);
            assert!(
                model
                    .coefficients()
                    .iter()
                    .all(|c| *c >= 0.0 && c.is_finite())
            );
            assert!(model.seconds(shapes()[1]) > 0.0);
        }
    }

    #[test]
    fn the_scale_follows_what_batches_take() {
        let mut model = CostModel::new(Layout::Packed, [0.0, 1e-3, 0.0]);
        let shape: BatchShape = [100].into_iter().collect();
        for _ in 0..200 {
            model.observe(shape, 0.3);
        }
        assert!((model.seconds(shape) - 0.3).abs() < 0.01, "{model:?}");
    }

    #[test]
    fn padding_counts_where_the_backend_pads() {
        let shape: BatchShape = [10, 100].into_iter().collect();
        assert_eq!(shape.computed_tokens(Layout::Padded), 200);
        assert_eq!(shape.computed_tokens(Layout::Packed), 110);
    }
}
