//! Runs a kernel on numbers that are always the same, and compares what it gives with arithmetic in f64: a kernel that gives something
//! else on this card, with this driver, is never used.

mod attention;
pub(crate) mod linear;
mod norms;
mod rows;
mod test;

use self::test::Test;
use crate::{
    device::{Kernel, Stream},
    error::DriverError,
    library::Shipped,
};

/// The reason why a kernel is not used.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Its results are wrong, as this says.
    Wrong(String),
    /// The driver failed.
    Driver(DriverError),
}

impl From<DriverError> for Rejection {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

/// Runs a kernel on fixed numbers.
///
/// # Errors
/// [`Rejection`] names the first wrong result, or the driver's error.
pub(crate) fn run(
    stream: &Stream,
    kernel: &Kernel,
    shipped: &Shipped,
    extent: Extent,
) -> Result<(), Rejection> {
    let test = Test {
        stream,
        kernel,
        format: shipped.format,
        extent,
    };
    let constant = |name| shipped.constant(name);
    match &*shipped.kind {
        "attention" => test.attention(constant("D"), constant("BM")),
        "linear" => test.linear(
            [constant("BM"), constant("BN"), constant("BK")],
            constant("ACT"),
        ),
        "add_norm" => test.add_norm(constant("BC")),
        "embed_norm" => test.embed_norm(constant("BC")),
        "first_rows" => test.first_rows(),
        "pool" => test.pool(constant("KIND")),
        "row_dot" => test.row_dot(),
        other => Err(Rejection::Wrong(format!("there is no test of {other}"))),
    }
}

/// The extent of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// As much as takes a device a millisecond.
    Quick,
    /// More tiles than go in one group, too.
    Whole,
}
