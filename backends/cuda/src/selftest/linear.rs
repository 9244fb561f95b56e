//! The tests of linear layers.

use embedgate_core::math;

use super::{
    Extent, Rejection,
    test::{Test, numbers},
};
use crate::{
    device::{Kernel, Stream},
    error::DriverError,
    format::Format,
};

/// The results of a linear layer's kernel on fixed numbers, bit for bit.
pub(crate) fn bits(
    stream: &Stream,
    kernel: &Kernel,
    tile: [usize; 3],
    format: Format,
) -> Result<Vec<u16>, DriverError> {
    let test = Test {
        stream,
        kernel,
        format,
        extent: Extent::Quick,
    };
    // Columns are whole tiles of every kernel; terms are more than one step of any.
    let (m, n, k) = (70, 256, 256);
    let (x, _) = test.put_halves(&numbers(1, m * k))?;
    let (w, _) = test.put_halves(&numbers(2, n * k))?;
    let bias = test.put(&numbers(3, n))?;
    let out = test.room(m * n * 2)?;
    test.call().linear([&x, &w, &bias, &out], [m, n, k], tile)?;
    let mut bits = vec![0; m * n];
    stream.download(&out, &mut bits)?;
    Ok(bits)
}

impl Test<'_> {
    /// Tests a linear layer, in these tiles, with this activation behind it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "functions are of f32, as on the device"
    )]
    pub(super) fn linear(
        &self,
        [bm, bn, bk]: [usize; 3],
        activation: usize,
    ) -> Result<(), Rejection> {
        // Some tiles of rows, or more than go in a group, the last of them cut; several tiles of columns and of terms.
        let tiles = if self.extent == Extent::Whole { 9 } else { 1 };
        let (m, n, k) = (bm * tiles + 5, bn * 2, bk * 4);
        let (x, xs) = self.put_halves(&numbers(1, m * k))?;
        let (w, ws) = self.put_halves(&numbers(2, n * k))?;
        let biases = numbers(3, n);
        let bias = self.put(&biases)?;
        let out = self.room(m * n * 2)?;
        self.call()
            .linear([&x, &w, &bias, &out], [m, n, k], [bm, bn, bk])?;
        let got = self.halves(&out, m * n)?;
        let activate: fn(f32) -> f32 = match activation {
            1 => |x| math::gelu(x, false),
            2 => |x| math::gelu_tanh(x, false),
            3 => |x| x.max(0.0),
            4 => f32::tanh,
            _ => |x| x,
        };
        let expected = (0..m * n).map(|i| {
            let (row, column) = (&xs[i / n * k..][..k], &ws[i % n * k..][..k]);
            let products = row.iter().zip(column);
            let sum: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            f64::from(activate((sum + f64::from(biases[i % n])) as f32))
        });
        self.compare(&got, &expected.collect::<Vec<f64>>(), 1.1)
    }
}
