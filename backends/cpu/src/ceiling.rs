//! The upper limit of the processor's speed: products of matrices that stay in its caches, with nothing between them.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use embedgate_core::{BackendError, Precision, machine::cores::Core};
use half::bf16;
use rayon::BroadcastContext;

use crate::{
    onednn::{
        Columns, Format, Instructions, Library, Number, OneDnnError, Product, Right, Shape, Tile,
        Weights,
    },
    precision::of_attention,
    threads::Threads,
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
/// of its own: the most of a few short measurements. The threads stay on cores of their own, of these; where there are
/// none the system chooses.
///
/// # Errors
/// When the library has no such product, or the system no such number of threads.
pub fn ceiling(
    library: &'static Library,
    precision: Precision,
    threads: usize,
    cores: &[Core],
) -> Result<f64, BackendError> {
    let threads = Threads::start(threads, cores)?;
    let mut most = 0.0_f64;
    for columns in COLUMNS {
        let rate = match precision {
            Precision::F32 => rate::<f32>(library, columns, &threads),
            Precision::Bf16 => rate::<bf16>(library, columns, &threads),
            Precision::Int8 => rate::<i8>(library, columns, &threads),
            Precision::F16 => {
                let reason = "the cpu backend has no products of f16".to_owned();
                return Err(BackendError::Load(reason));
            }
        };
        let rate = rate.map_err(|e| BackendError::inference("products cannot be measured", e))?;
        most = most.max(rate);
    }
    Ok(most)
}

/// Returns true when the library has all products of this precision on this processor, and computes them correctly.
#[must_use]
pub fn runs(library: &'static Library, precision: Precision) -> bool {
    fn tried<T: Number>(library: &'static Library) -> bool {
        Matrices::<T>::new(library, COLUMNS[0])
            .and_then(|mut matrices| matrices.multiply())
            .is_ok()
    }
    match precision {
        Precision::F32 => tried::<f32>(library),
        Precision::F16 => false,
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

/// The most that all threads together do with matrices of so many columns.
fn rate<T: Number>(
    library: &'static Library,
    columns: usize,
    threads: &Threads,
) -> Result<f64, OneDnnError> {
    let made = threads
        .pool
        .broadcast(|_| Matrices::<T>::new(library, columns).map(Mutex::new));
    let made = made.into_iter().collect::<Result<Vec<_>, _>>()?;
    let multiply = |context: BroadcastContext<'_>| -> Result<(), OneDnnError> {
        let own = made[context.index()].lock();
        let mut matrices = own.unwrap_or_else(PoisonError::into_inner);
        (0..RUNS).try_for_each(|_| matrices.multiply())
    };
    let operations = (2 * ROWS * INNER * columns * RUNS * made.len()) as f64;
    let mut most = 0.0_f64;
    for _ in 0..MEASUREMENTS {
        // Threads that wait for work begin within microseconds, and have it for milliseconds at least.
        let started = Instant::now();
        let done = threads.pool.broadcast(multiply);
        done.into_iter().collect::<Result<(), _>>()?;
        most = most.max(operations / started.elapsed().as_secs_f64());
    }
    Ok(most)
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
