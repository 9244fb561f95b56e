//! A kernel under test: numbers that are always the same, their way to the device and back, and the comparison.

use std::sync::Arc;

use super::{Extent, Rejection};
use crate::{
    calls::{
        Call,
        operands::{Norm, Sequences},
    },
    device::{Buffer, Device, Kernel, Stream},
    error::DriverError,
    format::Format,
};

/// A kernel under test.
pub(super) struct Test<'a> {
    pub(super) stream: &'a Stream,
    pub(super) kernel: &'a Kernel,
    pub(super) format: Format,
    pub(super) extent: Extent,
}

/// Added to the variance by normalizations.
pub(super) const EPS: f32 = 1e-5;
/// Lengths of texts: less than a tile, a tile, more, several.
pub(super) const LENGTHS: [usize; 6] = [1, 3, 64, 65, 17, 150];

/// Returns `n` numbers within -1 and 1, the same each time, by Marsaglia's xorshift.
pub(super) fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// The first rows of texts of [`LENGTHS`], and the end of the last.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "some hundred rows"
)]
pub(super) fn offsets() -> Vec<i32> {
    let mut sum = 0;
    let ends = LENGTHS.iter().map(|n| {
        sum += *n as i32;
        sum
    });
    std::iter::once(0).chain(ends).collect()
}

impl Test<'_> {
    fn device(&self) -> &Arc<Device> {
        self.stream.device()
    }

    /// Puts numbers on the device as they are.
    pub(super) fn put<T: Copy>(&self, numbers: &[T]) -> Result<Buffer, DriverError> {
        let buffer = Buffer::new(self.device(), size_of_val(numbers))?;
        self.stream.upload(numbers, &buffer, 0)?;
        Ok(buffer)
    }

    /// Puts numbers on the device in 16 bits; returns them as they are there, too.
    pub(super) fn put_halves(&self, numbers: &[f32]) -> Result<(Buffer, Vec<f32>), DriverError> {
        let bits: Vec<u16> = numbers.iter().map(|x| self.format.round(*x)).collect();
        let buffer = self.put(&bits)?;
        Ok((
            buffer,
            bits.into_iter().map(|x| self.format.number(x)).collect(),
        ))
    }

    /// Room for results, which is no numbers at first.
    pub(super) fn room(&self, bytes: usize) -> Result<Buffer, DriverError> {
        let buffer = Buffer::new(self.device(), bytes)?;
        self.stream.fill(&buffer, 0xff)?;
        Ok(buffer)
    }

    /// Puts weight and bias of a normalization on the device.
    pub(super) fn put_norm(&self, [weight, bias]: [&[f32]; 2]) -> Result<Norm, DriverError> {
        Ok(Norm {
            weight: self.put(weight)?,
            bias: self.put(bias)?,
            eps: EPS,
        })
    }

    /// The kernel, about to be launched.
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            stream: self.stream,
            kernel: self.kernel,
        }
    }

    /// Returns sequences of the lengths in [`LENGTHS`].
    pub(super) fn sequences<'a>(&self, offsets: &'a Buffer) -> Sequences<'a> {
        Sequences {
            offsets: offsets.into(),
            n: LENGTHS.len(),
            n_tokens: LENGTHS.iter().sum(),
        }
    }

    /// The first numbers of a buffer of halves.
    pub(super) fn halves(&self, from: &Buffer, n: usize) -> Result<Vec<f32>, DriverError> {
        let mut bits = vec![0_u16; n];
        self.stream.download(from, &mut bits)?;
        Ok(bits.into_iter().map(|x| self.format.number(x)).collect())
    }

    /// The first numbers of a buffer in f32.
    pub(super) fn floats(&self, from: &Buffer, n: usize) -> Result<Vec<f32>, DriverError> {
        let mut numbers = vec![0_f32; n];
        self.stream.download(from, &mut numbers)?;
        Ok(numbers)
    }

    /// Compares results, which may differ by so many roundings of the largest.
    pub(super) fn compare(
        &self,
        got: &[f32],
        expected: &[f64],
        roundings: f32,
    ) -> Result<(), Rejection> {
        let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let most = f64::from(roundings * self.format.rounding()) * largest;
        let differs = |(_, (a, b)): &(usize, (&f32, &f64))| {
            let difference = (f64::from(**a) - **b).abs();
            // A NaN is as wrong as can be.
            difference.is_nan() || difference > most
        };
        match got.iter().zip(expected).enumerate().find(differs) {
            None => Ok(()),
            Some((i, (a, b))) => Err(Rejection::Wrong(format!(
                "result {i} is {a}, expected {b} within {most:.1e}"
            ))),
        }
    }
}
