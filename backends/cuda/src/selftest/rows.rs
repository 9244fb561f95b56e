//! The tests of what takes rows, or makes one row or number of them.

use super::{
    Rejection,
    test::{LENGTHS, Test, numbers, offsets},
};
use crate::calls::operands::RowShape;

impl Test<'_> {
    /// Tests the copy of first rows.
    pub(super) fn first_rows(&self) -> Result<(), Rejection> {
        let (stride, n_tokens) = (320, LENGTHS.iter().sum::<usize>());
        let (x, xs) = self.put_halves(&numbers(1, n_tokens * stride))?;
        let offsets = offsets();
        let cu = self.put(&offsets)?;
        let out = self.room(LENGTHS.len() * stride * 2)?;
        self.call()
            .first_rows([&x, &out], self.sequences(&cu), stride)?;
        let first = offsets[..LENGTHS.len()].iter().flat_map(|row| {
            let begin = usize::try_from(*row).unwrap_or(0) * stride;
            xs[begin..begin + stride].iter().map(|x| f64::from(*x))
        });
        let expected: Vec<f64> = first.collect();
        self.compare(&self.halves(&out, expected.len())?, &expected, 0.0)
    }

    /// Tests a kind of pooling.
    pub(super) fn pool(&self, kind: usize) -> Result<(), Rejection> {
        let (width, stride, n_tokens) = (100, 128, LENGTHS.iter().sum::<usize>());
        let (x, xs) = self.put_halves(&numbers(1, n_tokens * stride))?;
        let offsets = offsets();
        let cu = self.put(&offsets)?;
        let out = self.room(LENGTHS.len() * width * 4)?;
        let row = RowShape { width, stride };
        self.call().pool([&x, &out], self.sequences(&cu), row)?;
        let expected = offsets.windows(2).flat_map(|ends| {
            let rows = ends[0]..ends[1];
            let at = |row: i32, column: usize| {
                f64::from(xs[usize::try_from(row).unwrap_or(0) * stride + column])
            };
            (0..width).map(move |c| {
                let column = rows.clone().map(|row| at(row, c));
                match kind {
                    0 => at(rows.start, c),
                    1 => at(rows.end - 1, c),
                    2 => column.sum::<f64>() / f64::from(rows.end - rows.start),
                    _ => column.fold(f64::NEG_INFINITY, f64::max),
                }
            })
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.floats(&out, expected.len())?, &expected, 1e-3)
    }

    /// Tests the product of each row with a weight.
    pub(super) fn row_dot(&self) -> Result<(), Rejection> {
        let (n, width, stride) = (9, 500, 512);
        let (x, xs) = self.put_halves(&numbers(1, n * stride))?;
        let ws = numbers(2, width);
        let w = self.put(&ws)?;
        let out = self.room(n * 4)?;
        self.call()
            .row_dot([&x, &w, &out], 0.25, n, RowShape { width, stride })?;
        let dot = |row: &[f32]| {
            let products = row.iter().zip(&ws);
            products
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>()
                + 0.25
        };
        let expected: Vec<f64> = xs.chunks_exact(stride).map(dot).collect();
        self.compare(&self.floats(&out, n)?, &expected, 1e-3)
    }
}
