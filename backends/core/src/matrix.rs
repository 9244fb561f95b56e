//! Rows of one width, back to back.

use std::ops::Range;

use crate::TokenBatch;

/// Rows of one width, back to back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// `rows() * width` numbers, row after row.
    pub data: Vec<f32>,
    /// Numbers in a row.
    pub width: usize,
}

impl Matrix {
    /// Makes a matrix of zeros of shape `(rows, width)`.
    #[must_use]
    pub fn zeros(rows: usize, width: usize) -> Self {
        Self {
            data: vec![0.0; rows * width],
            width,
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    /// Row `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, to write.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..(i + 1) * self.width]
    }

    /// The rows of each sequence, as a matrix of its own, without those of its first `skipped` tokens.
    ///
    /// `rows` has one row of `width` numbers for each token of the batch, or more.
    #[must_use]
    pub fn of_batch(rows: &[f32], width: usize, batch: &TokenBatch, skipped: usize) -> Vec<Self> {
        let of = |range: Range<usize>| Self {
            data: rows[(range.start + skipped) * width..range.end * width].to_vec(),
            width,
        };
        batch.ranges().map(of).collect()
    }
}
