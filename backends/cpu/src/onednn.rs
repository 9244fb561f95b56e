//! Matrix products by oneDNN: all that is unsafe in this crate, behind a safe face.
//!
//! In the folder are [`Library`], the loaded library with its objects, [`Weights`], a matrix in the layout that a product
//! likes best, [`Right`], how a right operand lies, [`Product`], a compiled product of one size, and [`Tile`], a part of a
//! matrix that one thread writes. Every call runs on the thread that makes it: who calls spreads the work.
//!
//! The reasons why it is sound: sizes and number formats of all operands are checked against the product before the
//! library sees a pointer; tiles of one matrix never overlap, which [`tiles`] alone decides; the library keeps no
//! pointer after a call (its streams on a CPU are synchronous), and its objects are immutable once made.

#![expect(
    unsafe_code,
    reason = "oneDNN is a C library, and tiles of one matrix are written by several threads"
)]

mod aligned;
mod execution;
mod ffi;
mod library;
mod matrix;
mod number;
mod object;
mod product;
mod tile;

pub use self::library::{Instructions, Library};
pub(crate) use self::{
    number::{Format, Number},
    object::OneDnnError,
    product::{Columns, Product, Right, Shape, weights::Weights},
    tile::{Tile, tiles},
};
