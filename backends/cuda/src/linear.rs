//! Linear layers: weights on the device, padded to whole tiles, and the kernels that multiply by them.

use std::sync::Arc;

use embedgate_core::encoder::Activation;

use crate::{
    device::{
        Argument::{Address, Int},
        Buffer, Stream,
    },
    error::DriverError,
    kernels::{Kernels, Loaded},
};

/// Widths are padded to a multiple of this: what tiles need.
pub(crate) const STEP: usize = 64;

/// What a product is followed by, as the kernels number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing = 0,
    Gelu = 1,
    GeluTanh = 2,
    Relu = 3,
    Tanh = 4,
}

impl From<Activation> for Then {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Gelu => Self::Gelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Relu => Self::Relu,
        }
    }
}

/// The kernels of products that are followed by the same, by size of tile. All of them give the same bits, so that any of them may run
/// a batch.
#[derive(Debug)]
pub(crate) struct Products {
    /// Tiles of rows, columns and terms; the smallest first.
    kernels: Vec<Loaded<3>>,
    multiprocessors: usize,
}

impl Products {
    pub(crate) fn load(kernels: &Kernels<'_>, then: Then) -> Result<Arc<Self>, DriverError> {
        let is_wanted =
            |shipped: &crate::library::Shipped| shipped.constant("ACT") == then as usize;
        let mut loaded = kernels.all("linear", is_wanted, ["BM", "BN", "BK"])?;
        loaded.sort_by_key(|kernel| kernel.tile);
        Ok(Arc::new(Self {
            kernels: loaded,
            multiprocessors: kernels.device().multiprocessors,
        }))
    }

    /// The largest tiles that leave no multiprocessor without work, of those that fit the columns.
    fn choose(&self, rows: usize, columns: usize) -> &Loaded<3> {
        let fits = |kernel: &&Loaded<3>| columns.is_multiple_of(kernel.tile[1]);
        let fills =
            |kernel: &&Loaded<3>| blocks(kernel.tile, rows, columns) >= self.multiprocessors;
        let mut fitting = self.kernels.iter().filter(fits);
        // Widths are multiples of the smallest tile.
        let smallest = fitting.next().unwrap_or(&self.kernels[0]);
        fitting.filter(fills).last().unwrap_or(smallest)
    }
}

fn blocks([tall, wide, _]: [usize; 3], rows: usize, columns: usize) -> usize {
    rows.div_ceil(tall) * (columns / wide)
}

/// A layer.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Shape `(outer, inner)`, in halves.
    pub(crate) weight: Buffer,
    /// In f32.
    pub(crate) bias: Buffer,
    pub(crate) outer: usize,
    pub(crate) inner: usize,
    pub(crate) products: Arc<Products>,
}

impl Linear {
    /// `to = then(from weight^T + bias)`, of so many rows of `inner` and `outer` halves.
    ///
    /// # Panics
    /// When a buffer is too short.
    pub(crate) fn forward(
        &self,
        stream: &Stream,
        from: &Buffer,
        to: &Buffer,
        rows: usize,
    ) -> Result<(), DriverError> {
        assert!(rows * self.inner * 2 <= from.bytes() && rows * self.outer * 2 <= to.bytes());
        let chosen = self.products.choose(rows, self.outer);
        let arguments = [
            Address(from.address()),
            Address(self.weight.address()),
            Address(self.bias.address()),
            Address(to.address()),
            int(rows),
            int(self.outer),
            int(self.inner),
        ];
        let grid = [blocks(chosen.tile, rows, self.outer), 1];
        // SAFETY: the buffers are as long, and widths are multiples of the tile's.
        #[expect(unsafe_code, reason = "kernels are given bare addresses")]
        unsafe {
            stream.launch(&chosen.kernel, grid, &arguments)
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }
}

/// An argument. Kernels number with 32 bits; sizes are checked when a model is loaded.
pub(crate) fn int(n: usize) -> crate::device::Argument {
    Int(i32::try_from(n).unwrap_or(i32::MAX))
}
