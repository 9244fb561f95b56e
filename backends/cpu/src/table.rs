//! The vectors of tokens, in the model's precision.

use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::{
    precision::Precision,
    vector::{Rounded, round},
};

/// Bytes of a row that have one scale: few enough that a column of large numbers does not make the others coarse.
const SCALED: usize = 64;
/// The largest byte that a number becomes.
const MOST: f32 = 127.0;

/// Vectors by id.
pub(crate) enum Table {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    /// A number is a byte times the scale of its [`SCALED`] ones; the last ones of a row may be fewer.
    Bytes {
        bytes: Vec<i8>,
        scales: Vec<f32>,
    },
}

impl Table {
    /// A table of zeros, in the format of a precision.
    pub(crate) fn zeros(precision: Precision, rows: usize, width: usize) -> Self {
        match precision {
            Precision::F32 => Self::F32(vec![0.0; rows * width]),
            Precision::Bf16 => Self::Bf16(vec![bf16::ZERO; rows * width]),
            Precision::Int8 => Self::Bytes {
                bytes: vec![0; rows * width],
                scales: vec![0.0; rows * width.div_ceil(SCALED)],
            },
        }
    }

    /// Puts rows in, from the one with the number `first` on.
    pub(crate) fn put(&mut self, first: usize, values: &[f32], width: usize) {
        match self {
            Self::F32(all) => put_rounded(&mut all[first * width..], values),
            Self::Bf16(all) => put_rounded(&mut all[first * width..], values),
            Self::Bytes { bytes, scales } => {
                let n_scales = width.div_ceil(SCALED);
                let rows = bytes[first * width..]
                    .par_chunks_mut(width)
                    .zip(scales[first * n_scales..].par_chunks_mut(n_scales))
                    .zip(values.par_chunks(width));
                rows.for_each(|((bytes, scales), values)| put_bytes(bytes, scales, values));
            }
        }
    }

    /// Copies a row.
    pub(crate) fn read(&self, id: usize, row: &mut [f32]) {
        let range = id * row.len()..(id + 1) * row.len();
        match self {
            Self::F32(all) => row.copy_from_slice(&all[range]),
            Self::Bf16(all) => {
                for (x, half) in row.iter_mut().zip(&all[range]) {
                    *x = half.to_f32();
                }
            }
            Self::Bytes { bytes, scales } => {
                let n_scales = row.len().div_ceil(SCALED);
                let scales = &scales[id * n_scales..(id + 1) * n_scales];
                let parts = row.chunks_mut(SCALED).zip(bytes[range].chunks(SCALED));
                for ((row, bytes), scale) in parts.zip(scales) {
                    for (x, byte) in row.iter_mut().zip(bytes) {
                        *x = f32::from(*byte) * scale;
                    }
                }
            }
        }
    }

    /// Returns the size of the table, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(all) => size_of_val(&all[..]),
            Self::Bf16(all) => size_of_val(&all[..]),
            Self::Bytes { bytes, scales } => size_of_val(&bytes[..]) + size_of_val(&scales[..]),
        }
    }
}

/// Numbers that a thread rounds at once.
const BLOCK: usize = 1 << 16;

fn put_rounded<T: Rounded>(to: &mut [T], values: &[f32]) {
    let blocks = to.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK));
    blocks.for_each(|(to, from)| round(from, to));
}

/// Makes one row of numbers bytes and scales.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is divided by its largest is within a byte, and the cast saturates"
)]
fn put_bytes(bytes: &mut [i8], scales: &mut [f32], values: &[f32]) {
    let parts = bytes.chunks_mut(SCALED).zip(scales);
    for ((bytes, scale), values) in parts.zip(values.chunks(SCALED)) {
        *scale = values.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / MOST;
        // Where all are zero, so are the bytes; what is no number makes their scale none.
        let factor = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        if values.iter().any(|x| x.is_nan()) {
            *scale = f32::NAN;
        }
        for (byte, x) in bytes.iter_mut().zip(values) {
            *byte = (x * factor).round_ties_even() as i8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_bytes_is_near_its_numbers_part_by_part() {
        // Two rows of one whole part and a short one, whose numbers are a thousand times as large.
        let width = SCALED + 5;
        let number = |i: usize| {
            let size = if i % width < SCALED { 1.0 } else { 1000.0 };
            size * ((i * 37 % 101) as f32 / 50.0 - 1.0)
        };
        let values: Vec<f32> = (0..2 * width).map(number).collect();
        let mut table = Table::zeros(Precision::Int8, 2, width);
        for (first, values) in values.chunks(width).enumerate() {
            table.put(first, values, width);
        }
        assert_eq!(table.bytes(), 2 * width + 2 * 2 * size_of::<f32>());
        let mut row = vec![0.0; width];
        for (id, values) in values.chunks(width).enumerate() {
            table.read(id, &mut row);
            for (at, (read, value)) in row.iter().zip(values).enumerate() {
                let largest = if at < SCALED { 1.0 } else { 1000.0 };
                assert!((read - value).abs() <= 0.51 * largest / MOST, "{id} {at}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_stays_none() {
        let mut values = vec![0.0; 2 * SCALED];
        values[SCALED] = f32::NAN;
        let mut table = Table::zeros(Precision::Int8, 2, SCALED);
        table.put(0, &values, SCALED);
        let mut row = vec![1.0; SCALED];
        table.read(0, &mut row);
        assert!(row.iter().all(|x| *x == 0.0));
        table.read(1, &mut row);
        assert!(row.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn rows_that_come_in_parts_are_where_they_belong() {
        let (rows, width) = (7, 3);
        let values: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let mut table = Table::zeros(precision, rows, width);
            for (at, values) in values.chunks(2 * width).enumerate() {
                table.put(2 * at, values, width);
            }
            let mut row = [0.0; 3];
            for (id, values) in values.chunks(width).enumerate() {
                table.read(id, &mut row);
                assert_eq!(row, values, "{precision:?} {id}");
            }
        }
    }
}
