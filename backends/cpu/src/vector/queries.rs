//! Queries and keys before attention: normalizations of heads, and rotations by position.

use std::{ops::Range, sync::Arc};

use embedgate_core::{
    encoder::{Rotary, RotaryPairs},
    math::{Fused, multiply_add, vectorized},
};

use super::{Norm, Rounded};

/// The cosines and sines of a rotation, for as many positions as there were until now: a model may allow millions.
pub(crate) struct Angles {
    rotary: Arc<Rotary>,
    /// Of each position: cosines, then sines.
    numbers: Vec<f32>,
}

impl Angles {
    /// The angles of a rotation, of no position yet.
    pub(crate) fn new(rotary: &Arc<Rotary>) -> Self {
        Self {
            rotary: Arc::clone(rotary),
            numbers: Vec::new(),
        }
    }

    /// Computes the angles of so many positions, where they are not there yet.
    pub(crate) fn grow(&mut self, positions: usize) {
        let rotary = &self.rotary;
        let n = 2 * rotary.frequencies.len();
        for position in self.numbers.len() / n.max(1)..positions {
            let (cos, sin): (Vec<f32>, Vec<f32>) = rotary.angles(position).unzip();
            self.numbers.extend(cos);
            self.numbers.extend(sin);
        }
    }

    /// Cosines and sines of a position.
    #[inline(always)]
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let n_pairs = self.rotary.frequencies.len();
        let n = 2 * n_pairs;
        self.numbers[position * n..(position + 1) * n].split_at(n_pairs)
    }
}

/// The normalizations and the rotation of a layer's queries and keys.
#[derive(Clone, Copy)]
pub(crate) struct QueryParts<'a> {
    /// Normalizations, each of some columns of a row, and each run of its width by itself.
    pub(crate) norms: &'a [(Range<usize>, Norm)],
    pub(crate) angles: Option<&'a Angles>,
    /// Numbers of queries and keys of a row, which lie in front.
    pub(crate) width: usize,
    /// Numbers of a head.
    pub(crate) head_size: usize,
}

/// Normalizes and turns the queries and keys of one row, by its position; `spare` is as long as they are.
pub(crate) fn prepare_queries<T: Rounded>(
    row: &mut [T],
    position: usize,
    parts: QueryParts<'_>,
    spare: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        |fused| {
            let row = &mut row[..parts.width];
            for (to, x) in spare.iter_mut().zip(&*row) {
                *to = x.to_f32();
            }
            for (columns, norm) in parts.norms {
                for run in spare[columns.clone()].chunks_exact_mut(norm.width()) {
                    norm.normalize(run, fused);
                }
            }
            if let Some(angles) = parts.angles {
                let (cos, sin) = angles.at(position);
                for head in spare.chunks_exact_mut(parts.head_size) {
                    match angles.rotary.pairs {
                        RotaryPairs::Halves => turn_halves(head, cos, sin, fused),
                        RotaryPairs::Neighbours => turn_neighbours(head, cos, sin),
                    }
                }
            }
            for (to, x) in row.iter_mut().zip(&*spare) {
                *to = T::from_f32(*x);
            }
        },
    );
}

#[inline(always)]
fn turn_halves(head: &mut [f32], cos: &[f32], sin: &[f32], fused: Fused) {
    let (first, second) = head.split_at_mut(cos.len());
    let pairs = first.iter_mut().zip(second);
    for ((a, b), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
        let (x, y) = (*a, *b);
        *a = multiply_add(x, *cos, -y * sin, fused);
        *b = multiply_add(y, *cos, x * sin, fused);
    }
}

#[inline(always)]
fn turn_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = head.chunks_exact_mut(2);
    for (pair, (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_turn_by_their_angles_and_the_rest_stays() {
        let mut rotary = Rotary::new(100.0, 4);
        for pairs in [RotaryPairs::Halves, RotaryPairs::Neighbours] {
            rotary.pairs = pairs;
            let mut angles = Angles::new(&Arc::new(rotary.clone()));
            angles.grow(2);
            angles.grow(4);
            let parts = QueryParts {
                norms: &[],
                angles: Some(&angles),
                width: 6,
                head_size: 6,
            };
            let mut row = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
            prepare_queries(&mut row, 3, parts, &mut [0.0; 6]);
            let (sin, cos) = 3.0_f32.sin_cos();
            let partner = if pairs == RotaryPairs::Halves { 2 } else { 1 };
            let (a, b) = (1.0, partner as f32 + 1.0);
            assert!((row[0] - (a * cos - b * sin)).abs() < 1e-6, "{pairs:?}");
            assert!((row[partner] - (b * cos + a * sin)).abs() < 1e-6);
            assert_eq!(row[4..], [5.0, 6.0, 7.0]);
        }
    }
}
