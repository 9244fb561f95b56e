//! What the processor does at most: products of matrices that stay in its caches, with nothing between them.

use std::{sync::Barrier, time::Instant};

use embedgate_core::{BackendError, Precision};
use half::bf16;

use crate::{
    Threads,
    onednn::{
        Columns, Format, Instructions, Library, Number, OneDnnError, Product, Right, Shape, Tile,
        Weights,
    },
    precision::of_attention,
};

const ROWS: usize = 128;
const INNER: usize = 1024;
/// In f32 the weights of the last fill a core's second cache, in bytes those of the first leave little to do at once.
const COLUMNS: [usize; 3] = [128, 256, 512];
/// Products of one measurement.
const RUNS: usize = 40;
/// The best of so many measurements counts: what disturbs them only makes them slower.
const MEASUREMENTS: usize = 7;

/// Multiplications and additions a second that so many threads do in products of this precision, each thread with matrices
/// of its own: the most of a few short measurements.
///
/// # Errors
/// When the library has no such product, or the system no such number of threads.
pub fn ceiling(
    library: &'static Library,
    precision: Precision,
    threads: usize,
) -> Result<f64, BackendError> {
    let start = Barrier::new(threads);
    let threads = Threads::start(threads, &[])?;
    let mut most = 0.0_f64;
    for columns in COLUMNS {
        let rates = threads.pool.broadcast(|_| match precision {
            Precision::F32 => rates::<f32>(library, columns, &start),
            Precision::Bf16 => rates::<bf16>(library, columns, &start),
            Precision::Int8 => rates::<i8>(library, columns, &start),
        });
        let rates: Result<Vec<_>, OneDnnError> = rates.into_iter().collect();
        let rates = rates.map_err(|e| BackendError::inference("products cannot be measured", e))?;
        let of_all = |i: usize| rates.iter().map(|of_thread| of_thread[i]).sum::<f64>();
        most = (0..MEASUREMENTS).map(of_all).fold(most, f64::max);
    }
    Ok(most)
}

/// Whether the library has all products of this precision on this processor, and computes them as they are.
#[must_use]
pub fn runs(library: &'static Library, precision: Precision) -> bool {
    fn tried<T: Number>(library: &'static Library) -> bool {
        Matrices::<T>::new(library, COLUMNS[0])
            .and_then(|mut matrices| matrices.multiply())
            .is_ok()
    }
    match precision {
        Precision::F32 => tried::<f32>(library),
        Precision::Bf16 => tried::<bf16>(library),
        Precision::Int8 => {
            let instructions = library.instructions();
            // Without dot products of bytes the library adds pairs of products in 16 bits, which do not hold them: the least
            // cosine of the real all-MiniLM-L6-v2 falls from 0.9987 to 0.986.
            instructions >= Instructions::Avx512Vnni
                && tried::<i8>(library)
                && runs(library, of_attention(precision, instructions))
        }
    }
}

/// The rates of one thread, which begins each measurement with all others.
fn rates<T: Number>(
    library: &'static Library,
    columns: usize,
    start: &Barrier,
) -> Result<[f64; MEASUREMENTS], OneDnnError> {
    let made = Matrices::<T>::new(library, columns);
    let mut rates = [0.0; MEASUREMENTS];
    let mut result = made.as_ref().map(|_| ()).map_err(Clone::clone);
    let mut made = made.ok();
    for rate in &mut rates {
        start.wait();
        let started = Instant::now();
        for _ in 0..RUNS {
            if let (Ok(()), Some(matrices)) = (&result, &mut made) {
                result = matrices.multiply();
            }
        }
        let operations = (2 * ROWS * INNER * columns * RUNS) as f64;
        *rate = operations / started.elapsed().as_secs_f64();
    }
    result.map(|()| rates)
}

struct Matrices<T> {
    columns: usize,
    product: Product,
    left: Vec<T>,
    right: Weights,
    result: Vec<f32>,
}

impl<T: Number> Matrices<T> {
    fn new(library: &'static Library, columns: usize) -> Result<Self, OneDnnError> {
        let shape = Shape {
            rows: ROWS,
            inner: INNER,
            columns,
            format: T::FORMAT,
            src_stride: INNER,
            dst_format: Format::F32,
            dst_stride: columns,
            has_scales: false,
            has_bias: false,
            activation: None,
        };
        let product = Product::new(library, shape, Right::Any)?;
        let zeros: Vec<T> = std::iter::repeat_n(T::default(), INNER * columns).collect();
        let right = Weights::pack(&product, &zeros)?;
        Ok(Self {
            columns,
            product: Product::new(library, shape, Right::Packed(&right))?,
            left: vec![T::default(); ROWS * INNER],
            right,
            result: vec![0.0; ROWS * columns],
        })
    }

    fn multiply(&mut self) -> Result<(), OneDnnError> {
        let mut result = Tile::whole(&mut self.result, self.columns);
        let (left, right) = (&self.left, &self.right);
        self.product
            .run(left, right, &Columns::default(), &mut result)
    }
}
