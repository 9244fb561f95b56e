//! Examines a card: whether every kernel gives right results on it, in every form in which it could be given one, and how
//! fast products are.

use std::{sync::Arc, time::Duration};

use crate::{
    device::{Device, Entry, Kernel, Stream},
    error::DriverError,
    format::Format,
    kernels::Kernels,
    library::{Library, Variant},
    products::{Products, Then},
    selftest::{self, Extent, Rejection},
};

/// A kernel in one of the forms that a card can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kernel's name.
    pub kernel: String,
    /// Such as `machine code for 9.0`.
    pub form: &'static str,
    /// The reason why it is not used, if it is not.
    pub problem: Option<String>,
}

/// Forms of a kernel that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// The one that is used where it is right.
    First,
    /// Machine code and PTX, of every architecture that the card takes.
    All,
}

/// Runs every kernel that ships on fixed numbers, and compares with arithmetic in f64.
///
/// # Errors
/// [`DriverError`] when the card has a fault, after which nothing more can be said: it names the kernel.
pub fn examine(device: &Arc<Device>, forms: Forms) -> Result<Vec<Finding>, DriverError> {
    let (library, stream) = (Library::read(), Stream::new(device)?);
    let mut findings = Vec::new();
    for name in library.names() {
        let variants = library.variants(name, device.capability);
        let n = if forms == Forms::First {
            1
        } else {
            variants.len()
        };
        for variant in variants.into_iter().take(n) {
            let problem = match run(device, &stream, variant) {
                Ok(()) => None,
                Err(Rejection::Wrong(problem)) => Some(problem),
                Err(Rejection::Driver(error)) if error.is_lasting() => {
                    return Err(DriverError::Wrong {
                        kernel: format!("{name} ({})", variant.what),
                        device: device.name.clone(),
                        reason: error.to_string(),
                    });
                }
                Err(Rejection::Driver(error)) => Some(error.to_string()),
            };
            findings.push(Finding {
                kernel: name.to_owned(),
                form: variant.what,
                problem,
            });
        }
    }
    Ok(findings)
}

fn run(device: &Arc<Device>, stream: &Stream, variant: Variant<'_>) -> Result<(), Rejection> {
    let kernel = Kernel::load(device, variant.image, Entry::of(variant.shipped))?;
    selftest::run(stream, &kernel, variant.shipped, Extent::Whole)
}

/// The time of a product with tiles of one size.
#[derive(Clone, Debug)]
pub struct Speed {
    /// The format of what is multiplied.
    pub format: Format,
    /// Tiles of rows, columns and terms.
    pub tile: [usize; 3],
    /// Rows, columns and terms of the product.
    pub shape: [usize; 3],
    /// The least of several runs.
    pub time: Duration,
}

impl Speed {
    /// Multiplications and additions a second, in 10^12.
    #[must_use]
    pub fn teraflops(&self) -> f64 {
        let [rows, columns, terms] = self.shape.map(|n| n as f64);
        2.0 * rows * columns * terms / self.time.as_secs_f64().max(1e-9) / 1e12
    }
}

/// Times products of these columns and terms, which are multiples of 256, with tiles of every size.
///
/// # Errors
/// [`DriverError`] when the card has too little memory, or a fault.
pub fn product_speeds(
    device: &Arc<Device>,
    rows: usize,
    shapes: &[[usize; 2]],
) -> Result<Vec<Speed>, DriverError> {
    let (library, stream) = (Library::read(), Stream::new(device)?);
    let mut speeds = Vec::new();
    for format in [Format::F16, Format::Bf16] {
        let kernels = Kernels::new(&library, &stream, format, Extent::Quick);
        let products = Products::load(&kernels, Then::Nothing)?;
        for [columns, terms] in shapes {
            let times = products.times(&stream, [rows, *columns, *terms])?;
            let speed = |(tile, time)| Speed {
                format,
                tile,
                shape: [rows, *columns, *terms],
                time,
            };
            speeds.extend(times.into_iter().map(speed));
        }
    }
    Ok(speeds)
}
