//! Kernels of products: all sizes of tiles that are right on a card, and which of them is the fastest for a shape.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embedgate_core::encoder::Activation;

use crate::{
    calls::Call,
    device::{Buffer, Stream},
    error::DriverError,
    kernels::{Kernels, Loaded},
    library::Shipped,
    selftest,
};

/// The function behind a product, as the kernels number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing = 0,
    Gelu = 1,
    GeluTanh = 2,
    Relu = 3,
    Tanh = 4,
}

impl Then {
    /// Returns the function of an activation; none where there are no kernels of it.
    pub(crate) fn of(activation: Activation) -> Option<Self> {
        Some(match activation {
            Activation::Gelu => Self::Gelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Relu => Self::Relu,
            Activation::Tanh => Self::Tanh,
            Activation::Silu => return None,
        })
    }
}

/// The weights of a layer on the device, padded to whole tiles.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Shape `(outer, inner)`, in halves.
    pub(crate) weight: Buffer,
    /// In f32.
    pub(crate) bias: Buffer,
    pub(crate) outer: usize,
    pub(crate) inner: usize,
}

/// The kernels of products that are followed by the same, by size of tile. All of them give the same bits, so that any of them may run
/// a batch.
#[derive(Debug)]
pub(crate) struct Products {
    /// Tiles of rows, columns and terms; the smallest first.
    kernels: Vec<Loaded<3>>,
    multiprocessors: usize,
    /// By outer and inner width: which kernel is fastest with many rows.
    fastest: Mutex<HashMap<[usize; 2], usize>>,
}

/// Runs of a measurement, of which the fastest counts: the first loads what the others find in caches.
const RUNS: usize = 3;

impl Products {
    /// Loads the kernels that are right, and that give the same bits.
    pub(crate) fn load(kernels: &Kernels<'_>, then: Then) -> Result<Arc<Self>, DriverError> {
        let is_wanted = |shipped: &Shipped| shipped.constant("ACT") == then as usize;
        let mut loaded = kernels.all("linear", is_wanted, ["BM", "BN", "BK"])?;
        loaded.sort_by_key(|kernel| kernel.tile);
        let bits = |of: &Loaded<3>| {
            selftest::linear::bits(kernels.stream(), &of.kernel, of.tile, kernels.format())
        };
        let expected = loaded.first().map(bits).transpose()?;
        let mut same = Vec::new();
        for kernel in loaded {
            if Some(bits(&kernel)?) == expected {
                same.push(kernel);
            } else {
                tracing::info!(
                    "tiles of {:?} round otherwise on {} and are not used: a text's vectors shall not depend on its batch",
                    kernel.tile,
                    kernels.device().name
                );
            }
        }
        Ok(Arc::new(Self {
            kernels: same,
            multiprocessors: kernels.device().multiprocessors,
            fastest: Mutex::default(),
        }))
    }

    /// The kernel that is fastest with so many rows, measured once a shape; with 0 rows the largest.
    pub(crate) fn fastest(
        &self,
        stream: &Stream,
        weights: &Weights,
        rows: usize,
    ) -> Result<usize, DriverError> {
        let &Weights { outer, inner, .. } = weights;
        let shape = [outer, inner];
        let lock = || self.fastest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&shape) {
            return Ok(*known);
        }
        let fits = |kernel: &Loaded<3>| outer.is_multiple_of(kernel.tile[1]);
        let largest = self.kernels.iter().rposition(fits);
        let largest = largest.ok_or_else(|| DriverError::Wrong {
            kernel: format!("linear of {outer} columns"),
            device: stream.device().name.clone(),
            reason: "its smallest tiles are not right".into(),
        })?;
        if rows == 0 {
            return Ok(largest);
        }
        let buffers = [&weights.weight, &weights.bias];
        let times = self.measured(stream, buffers, [rows, outer, inner])?;
        let least = times.into_iter().min_by_key(|(_, time)| *time);
        let fastest = least.map_or(largest, |(i, _)| i);
        lock().insert(shape, fastest);
        Ok(fastest)
    }

    /// The least time of each kernel that fits, by its place.
    fn measured(
        &self,
        stream: &Stream,
        [weight, bias]: [&Buffer; 2],
        [rows, columns, terms]: [usize; 3],
    ) -> Result<Vec<(usize, Duration)>, DriverError> {
        let device = stream.device();
        let (from, to) = (
            Buffer::new(device, rows * terms * 2)?,
            Buffer::new(device, rows * columns * 2)?,
        );
        stream.fill(&from, 0)?;
        let mut times = Vec::new();
        for (i, Loaded { kernel, tile }) in self.kernels.iter().enumerate() {
            if !columns.is_multiple_of(tile[1]) {
                continue;
            }
            let mut least = Duration::MAX;
            for _ in 0..RUNS {
                let run = || {
                    let buffers = [&from, weight, bias, &to];
                    Call { stream, kernel }.linear(buffers, [rows, columns, terms], *tile)
                };
                least = least.min(stream.time(run)?);
            }
            times.push((i, least));
        }
        Ok(times)
    }

    /// The least time of a product of so many rows, columns and terms with tiles of each size.
    pub(crate) fn times(
        &self,
        stream: &Stream,
        shape: [usize; 3],
    ) -> Result<Vec<([usize; 3], Duration)>, DriverError> {
        let [_, columns, terms] = shape;
        let weight = Buffer::new(stream.device(), columns * terms * 2)?;
        let bias = Buffer::new(stream.device(), columns * 4)?;
        stream.fill(&weight, 0)?;
        stream.fill(&bias, 0)?;
        let times = self.measured(stream, [&weight, &bias], shape)?;
        let of = |(i, time): (usize, Duration)| (self.kernels[i].tile, time);
        Ok(times.into_iter().map(of).collect())
    }

    /// The kernel for so many rows: the fastest, unless it leaves multiprocessors without work; then the largest tiles that do not.
    pub(crate) fn choose(&self, rows: usize, columns: usize, fastest: usize) -> &Loaded<3> {
        let fits = |kernel: &&Loaded<3>| columns.is_multiple_of(kernel.tile[1]);
        let fills =
            |kernel: &&Loaded<3>| blocks(kernel.tile, rows, columns) >= self.multiprocessors;
        let fastest = &self.kernels[fastest];
        if fills(&fastest) {
            return fastest;
        }
        let mut fitting = self.kernels.iter().filter(fits);
        // The fastest one fits.
        let smallest = fitting.next().unwrap_or(fastest);
        fitting.filter(fills).last().unwrap_or(smallest)
    }
}

/// The blocks of a launch.
fn blocks([tall, wide, _]: [usize; 3], rows: usize, columns: usize) -> usize {
    rows.div_ceil(tall) * (columns / wide)
}
