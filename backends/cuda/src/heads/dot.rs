//! Linear layers of one number a row, in f32.

use crate::{
    calls::{Call, operands::RowShape},
    device::{Buffer, Kernel, Stream},
    error::DriverError,
    load::{LoadError, Loader},
};

/// A linear layer of one number.
#[derive(Debug)]
pub(super) struct DotLayer {
    weight: Buffer,
    bias: f32,
    dot: Kernel,
}

impl DotLayer {
    /// Loads the layer of this name, of rows of `width` numbers.
    pub(super) fn load(loader: &Loader<'_>, name: &str, width: usize) -> Result<Self, LoadError> {
        let weight = loader
            .weights
            .values(&format!("{name}.weight"), &[1, width])?;
        let bias = loader.weights.values(&format!("{name}.bias"), &[1])?;
        Ok(Self {
            weight: loader.put(&weight)?,
            bias: bias[0],
            dot: loader.kernels.one("row_dot", |_| true)?,
        })
    }

    /// The number of each of the first `n` rows, by way of memory on the device.
    pub(super) fn forward(
        &self,
        stream: &Stream,
        [from, floats]: [&Buffer; 2],
        n: usize,
        row: RowShape,
    ) -> Result<Vec<f32>, DriverError> {
        let kernel = &self.dot;
        let buffers = [from, &self.weight, floats];
        Call { stream, kernel }.row_dot(buffers, self.bias, n, row)?;
        let mut numbers = vec![0.0; n];
        stream.download(floats, &mut numbers)?;
        Ok(numbers)
    }
}
