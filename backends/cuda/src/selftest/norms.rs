//! The tests of what normalizes rows.

use super::{
    Rejection,
    test::{EPS, Test, numbers},
};
use crate::calls::operands::{Embedding, RowShape, Tables, Tokens};

impl Test<'_> {
    /// Tests the normalization of sums of rows, whose width is near the widest.
    pub(super) fn add_norm(&self, widest: usize) -> Result<(), Rejection> {
        let (n, width) = (5, widest - 70);
        let stride = widest - 64;
        let (x, xs) = self.put_halves(&numbers(1, n * stride))?;
        let (r, rs) = self.put_halves(&numbers(2, n * stride))?;
        let (gs, bs) = (numbers(3, width), numbers(4, width));
        let norm = self.put_norm([&gs, &bs])?;
        let out = self.room(n * stride * 2)?;
        let row = RowShape { width, stride };
        self.call().add_norm([&x, &r, &out], &norm, n, row)?;
        let rows = xs.chunks_exact(stride).zip(rs.chunks_exact(stride));
        let expected = rows.flat_map(|(x, r)| {
            let sums = x.iter().zip(r).take(width);
            let sums: Vec<f64> = sums.map(|(x, r)| f64::from(*x) + f64::from(*r)).collect();
            normalized(&sums, [&gs, &bs], stride)
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.halves(&out, n * stride)?, &expected, 1.1)
    }

    /// Tests the normalization of what tokens are looked up as.
    pub(super) fn embed_norm(&self, widest: usize) -> Result<(), Rejection> {
        let (width, stride) = (widest - 70, widest - 64);
        let places: [[i32; 3]; 4] = [[0, 1, 0], [6, 0, 1], [3, 4, 0], [6, 2, 1]];
        let column = |i: usize| places.map(|place| place[i]);
        let (ids, pos, seg) = (
            self.put(&column(0))?,
            self.put(&column(1))?,
            self.put(&column(2))?,
        );
        let tokens = Tokens {
            ids: (&ids).into(),
            positions: (&pos).into(),
            segments: (&seg).into(),
            n: places.len(),
        };
        let (word, ws) = self.put_halves(&numbers(1, 7 * width))?;
        let (position, ps) = self.put_halves(&numbers(2, 5 * width))?;
        let (segment, ts) = self.put_halves(&numbers(3, 2 * width))?;
        let (gs, bs) = (numbers(4, width), numbers(5, width));
        let embedding = Embedding {
            tables: Tables {
                word,
                position,
                segment,
            },
            norm: self.put_norm([&gs, &bs])?,
        };
        let out = self.room(places.len() * stride * 2)?;
        let row = RowShape { width, stride };
        self.call().embed_norm(tokens, &embedding, &out, row)?;
        let expected = places.iter().flat_map(|place| {
            let row = |values: &[f32], i: i32| {
                let begin = usize::try_from(i).unwrap_or(0) * width;
                values[begin..begin + width].to_vec()
            };
            let (w, p, t) = (row(&ws, place[0]), row(&ps, place[1]), row(&ts, place[2]));
            let sum = |i: usize| f64::from(w[i]) + f64::from(p[i]) + f64::from(t[i]);
            normalized(
                &(0..width).map(sum).collect::<Vec<f64>>(),
                [&gs, &bs],
                stride,
            )
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.halves(&out, places.len() * stride)?, &expected, 1.1)
    }
}

/// `LayerNorm` of a row, with zeros up to `stride`.
fn normalized(row: &[f64], [gains, biases]: [&[f32]; 2], stride: usize) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
    let of = |i: usize| match row.get(i) {
        Some(x) => (x - mean) * scale * f64::from(gains[i]) + f64::from(biases[i]),
        None => 0.0,
    };
    (0..stride).map(of).collect()
}
