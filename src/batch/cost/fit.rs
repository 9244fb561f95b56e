//! Fits the plane of a cost model to measured batches.

use embedgate_core::Layout;

use super::{BatchShape, CostModel};

impl CostModel {
    /// Fits the plane to measured batches by least squares of the relative error; no coefficient is negative.
    ///
    /// Without a measurement it is 1 ms a token.
    #[must_use]
    pub(crate) fn fit(layout: Layout, measured: &[(BatchShape, f64)]) -> Self {
        let rows: Vec<([f64; 3], f64)> = measured
            .iter()
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(shape, seconds)| {
                let terms = [
                    1.0,
                    shape.computed_tokens(layout) as f64,
                    shape.computed_squares(layout) as f64,
                ];
                (terms, *seconds)
            })
            .collect();
        // Every subset of the terms is tried, which finds the best fit without negative coefficients: there are seven.
        let mut best = ([0.0, 1e-3, 0.0], f64::INFINITY);
        for subset in 1_u8..8 {
            let Some(fit) = least_squares(&rows, subset) else {
                continue;
            };
            let error: f64 = rows
                .iter()
                .map(|(terms, y)| (dot(terms, &fit) / y - 1.0).powi(2))
                .sum();
            if fit.iter().all(|c| *c >= 0.0) && error < best.1 * (1.0 - 1e-9) {
                best = (fit, error);
            }
        }
        Self::new(layout, best.0)
    }
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Solves the normal equations of the terms in `subset` (a bit each), every row divided by its result.
fn least_squares(rows: &[([f64; 3], f64)], subset: u8) -> Option<[f64; 3]> {
    let terms: Vec<usize> = (0..3).filter(|i| subset >> i & 1 == 1).collect();
    let n = terms.len();
    if rows.len() < n {
        return None;
    }
    // Columns are scaled to their largest value: squares are millions of times the constant.
    let largest = |term: usize| rows.iter().map(|(t, y)| t[term] / y).fold(1e-300, f64::max);
    let scale: Vec<f64> = terms.iter().map(|term| largest(*term)).collect();
    let mut matrix = vec![vec![0.0; n + 1]; n];
    for (row, y) in rows {
        let x: Vec<f64> = terms
            .iter()
            .zip(&scale)
            .map(|(term, scale)| row[*term] / y / scale)
            .collect();
        for i in 0..n {
            for j in 0..n {
                matrix[i][j] += x[i] * x[j];
            }
            matrix[i][n] += x[i];
        }
    }
    let solution = eliminate(matrix)?;
    let mut fit = [0.0; 3];
    for ((term, scale), value) in terms.iter().zip(&scale).zip(solution) {
        fit[*term] = value / scale;
    }
    Some(fit)
}

/// Gauss-Jordan elimination with pivoting; none where the rows depend on each other.
fn eliminate(mut m: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = m.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| m[*a][i].abs().total_cmp(&m[*b][i].abs()))?;
        m.swap(i, pivot);
        if m[i][i].abs() < 1e-9 {
            return None;
        }
        let pivot = m[i].clone();
        for (j, row) in m.iter_mut().enumerate() {
            let factor = if j == i { 0.0 } else { row[i] / pivot[i] };
            for (x, p) in row.iter_mut().zip(&pivot) {
                *x -= factor * p;
            }
        }
    }
    Some((0..n).map(|i| m[i][n] / m[i][i]).collect())
}
