//! A softmax whose row is seen in parts. Powers are of 2: scores are in bits.

use embedgate_core::math::{Fused, LANES, exp2, fold, multiply_add, vectorized};

use super::Rounded;
use crate::onednn::Tile;

/// The state of a softmax over several parts of a row, after the parts until now.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    pub(crate) largest: f32,
    pub(crate) total: f32,
}

impl Running {
    pub(crate) const NONE: Self = Self {
        largest: f32::NEG_INFINITY,
        total: 0.0,
    };
}

/// One part of a softmax: `powers = 2^(scores - largest so far)`, 0 for the rest of the row.
///
/// Returns what totals and results until now are multiplied with, since a part may hold a larger score than those before.
///
/// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
#[inline(always)]
fn softmax_part<T: Rounded>(
    scores: &[f32],
    powers: &mut [T],
    running: &mut Running,
    fused: Fused,
) -> f32 {
    let n = scores.len();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let of_lanes = fold(lanes, |a, b| if a > b { a } else { b });
    let rest = rest.iter().fold(of_lanes, |a, b| a.max(*b));
    let largest = running.largest.max(rest);
    let correction = exp2(running.largest - largest, fused);
    let n_whole = n / LANES * LANES;
    let (mut sums, mut taken) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for (powers, scores) in powers[..n_whole]
        .chunks_exact_mut(LANES)
        .zip(scores.chunks_exact(LANES))
    {
        for (e, score) in taken.iter_mut().zip(scores) {
            *e = exp2(*score - largest, fused);
        }
        for (power, e) in powers.iter_mut().zip(taken) {
            *power = T::from_power(e);
        }
        for (sum, e) in sums.iter_mut().zip(taken) {
            *sum += e;
        }
    }
    let mut total = fold(sums, |a, b| a + b);
    for (power, score) in powers[n_whole..n].iter_mut().zip(&scores[n_whole..]) {
        let e = exp2(*score - largest, fused);
        *power = T::from_power(e);
        total += e;
    }
    powers[n..].fill(T::from_f32(0.0));
    *running = Running {
        largest,
        total: running.total * correction + total,
    };
    correction
}

/// The scores of one part of several rows.
#[derive(Clone, Copy)]
pub(crate) struct Scores<'a> {
    pub(crate) numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// Scores of a row; the numbers behind them mean nothing.
    pub(crate) n: usize,
}

/// A part of the softmax of several rows: see [`softmax_part`]. `powers` has rows as long as those of the scores;
/// `corrections` gets one number a row.
pub(crate) fn softmax<T: Rounded>(
    Scores { numbers, stride, n }: Scores<'_>,
    powers: &mut [T],
    running: &mut [Running],
    corrections: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        |fused| {
            let rows = numbers
                .chunks_exact(stride)
                .zip(powers.chunks_exact_mut(stride));
            for ((row, powers), (running, correction)) in
                rows.zip(running.iter_mut().zip(corrections.iter_mut()))
            {
                *correction = softmax_part(&row[..n], powers, running, fused);
            }
        },
    );
}

/// `sum = sum * correction + part`, row by row.
pub(crate) fn accumulate(sum: &mut [f32], part: &[f32], corrections: &[f32], width: usize) {
    vectorized(
        #[inline(always)]
        |fused| {
            let rows = sum.chunks_exact_mut(width).zip(part.chunks_exact(width));
            for ((sum, part), correction) in rows.zip(corrections) {
                for (sum, part) in sum.iter_mut().zip(part) {
                    *sum = multiply_add(*sum, *correction, *part, fused);
                }
            }
        },
    );
}

/// `dst = sum / total`, row by row, from row `first` of `dst` on.
pub(crate) fn divide<T: Rounded>(
    sum: &[f32],
    running: &[Running],
    first: usize,
    dst: &mut Tile<'_, T>,
) {
    vectorized(
        #[inline(always)]
        |_| {
            let width = dst.columns();
            for (i, Running { total, .. }) in running.iter().enumerate() {
                let inverse = 1.0 / total;
                let sum = &sum[i * width..(i + 1) * width];
                for (to, x) in dst.row_mut(first + i).iter_mut().zip(sum) {
                    *to = T::from_f32(x * inverse);
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_in_parts_is_that_of_the_whole() {
        let scores: Vec<f32> = (0..75)
            .map(|i| (i as f32 * 1.3).cos() * 9.0 + i as f32 * 0.1)
            .collect();
        let whole: f64 = scores.iter().map(|x| f64::from(*x).exp2()).sum();
        let (mut running, mut kept, mut powers) = ([Running::NONE], Vec::new(), vec![0.0_f32; 40]);
        for (from, n) in [(0, 40), (40, 35)] {
            let mut row = scores[from..from + n].to_vec();
            row.resize(40, 1e9);
            let mut correction = [0.0];
            let seen = Scores {
                numbers: &row,
                stride: 40,
                n,
            };
            softmax(seen, &mut powers, &mut running, &mut correction);
            kept.iter_mut().for_each(|x| *x *= correction[0]);
            kept.extend_from_slice(&powers[..n]);
            assert!(powers[n..].iter().all(|x| *x == 0.0));
        }
        for (power, score) in kept.iter().zip(&scores) {
            let expected = f64::from(*score).exp2() / whole;
            assert!((f64::from(power / running[0].total) - expected).abs() < 1e-6);
        }
    }
}
