//! The way of a matrix to the device: some rows at a time, rounded, each number to its place.

use super::{LoadError, Loader};
use crate::device::Buffer;

/// The layout of a tensor's numbers on the device.
pub(super) struct TensorLayout<R, C> {
    /// The place of a row.
    pub(super) row: R,
    /// The place of a number in its row.
    pub(super) column: C,
    /// Numbers of a row on the device.
    pub(super) stride: usize,
}

/// A copy that is under way.
struct Copying<'a, R, C> {
    loader: &'a Loader<'a>,
    /// The tensor's name.
    name: &'a str,
    /// Numbers of a row of the tensor.
    width: usize,
    to: &'a Buffer,
    layout: &'a TensorLayout<R, C>,
    /// Rows that go at once.
    halves: Vec<u16>,
}

impl Loader<'_> {
    /// Room for a matrix in halves, all zeros.
    pub(crate) fn zeros(&self, [rows, stride]: [usize; 2]) -> Result<Buffer, LoadError> {
        let n = rows * stride;
        // Kernels number with 32 bits.
        if i32::try_from(n).is_err() {
            let message =
                format!("a matrix of {rows} x {stride} is larger than the cuda backend takes");
            return Err(LoadError::Unfit(message));
        }
        let buffer = Buffer::new(self.stream().device(), n * 2)?;
        self.stream().fill(&buffer, 0)?;
        self.stream().wait()?;
        Ok(buffer)
    }

    /// Copies a matrix to the device, each row to its place there. Places of rows after one another must be after one another where no
    /// other tensor's rows are between them.
    pub(super) fn copy<R: Fn(usize) -> usize, C: Fn(usize) -> usize>(
        &self,
        name: &str,
        [rows, width]: [usize; 2],
        to: &Buffer,
        layout: &TensorLayout<R, C>,
    ) -> Result<(), LoadError> {
        let mut copying = Copying {
            loader: self,
            name,
            width,
            to,
            layout,
            halves: Vec::new(),
        };
        let mut failed = Ok(());
        self.weights
            .with_rows(name, [rows, width], |first, values| {
                if failed.is_ok() {
                    failed = copying.block(first, values);
                }
            })?;
        failed
    }
}

impl<R: Fn(usize) -> usize, C: Fn(usize) -> usize> Copying<'_, R, C> {
    /// Copies some rows: those whose places are after one another go at once.
    fn block(&mut self, first: usize, values: &[f32]) -> Result<(), LoadError> {
        let Self {
            loader,
            name,
            width,
            to,
            layout,
            halves,
        } = self;
        let (stream, format) = (loader.stream(), loader.format());
        let too_large = |x: &&f32| x.abs() > format.largest();
        if let Some(value) = values.iter().find(too_large) {
            return Err(LoadError::TooLarge {
                name: (*name).to_owned(),
                value: *value,
                format,
            });
        }
        halves.clear();
        let mut begin = (layout.row)(first);
        for (i, row) in values.chunks_exact(*width).enumerate() {
            let place = (layout.row)(first + i);
            if place != begin + halves.len() / layout.stride {
                stream.upload(halves, to, begin * layout.stride * 2)?;
                halves.clear();
                begin = place;
            }
            let at = halves.len();
            halves.resize(at + layout.stride, 0);
            for (column, x) in row.iter().enumerate() {
                halves[at + (layout.column)(column)] = format.round(*x);
            }
        }
        stream.upload(halves, to, begin * layout.stride * 2)?;
        Ok(())
    }
}
