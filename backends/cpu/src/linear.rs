//! Linear layers: weights packed once, in slices of columns that threads share among themselves.

mod pack;
mod spare;

use std::ops::Range;

use embedgate_core::encoder::Activation;
use half::bf16;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use self::spare::Spare;
use crate::{
    compiled::Compiled,
    onednn::{
        Columns, Format, Library, Number, OneDnnError, Product, Right, Shape, Tile, Weights, tiles,
    },
    precision::{Precision, operands},
    vector::{self, ByteProduct, add_bytes, finish_bytes},
};

/// Rows of one product. Products of more are no faster, and each number of rows is a product to compile: operands are
/// padded to a multiple of [`ROW_STEP`] and go in blocks of this many, so that there are few.
pub(crate) const BLOCK_ROWS: usize = 128;
/// Rows of an AMX tile; other instructions take 6 to 14 rows at once.
pub(crate) const ROW_STEP: usize = 16;
const N_STEPS: usize = BLOCK_ROWS / ROW_STEP;

/// Left operands of a product: rows back to back.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    /// Bytes, and what the bytes of each row are multiplied with.
    Int8(&'a [i8], &'a [f32]),
}

/// The place for results: rows back to back.
pub(crate) enum Target<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    /// Added to what is there.
    Sum(&'a mut [f32]),
}

/// The settings by which a layer is run.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) precision: Precision,
    pub(crate) activation: Option<Activation>,
    /// The number format of results: f32 always, or bfloat16 where the operands are not f32.
    pub(crate) dst: Format,
    /// Threads that share a product.
    pub(crate) threads: usize,
}

/// `activation(x W^T + b)`.
pub(crate) struct Linear {
    library: &'static Library,
    form: Form,
    inner: usize,
    outer: usize,
    /// Columns of each slice.
    ranges: Vec<Range<usize>>,
    slices: Vec<(Weights, Columns)>,
    products: Products,
}

/// Compiled products of one left operand's width, by the steps of rows, for slices that are alike and for a last one that
/// is smaller.
#[derive(Default)]
struct Products([[Compiled; N_STEPS]; 2]);

/// Some rows of a left operand, with the slice that they are multiplied by.
struct Block<'a, A> {
    product: &'a Product,
    weights: &'a Weights,
    columns: &'a Columns,
    /// Number of the first row.
    first: usize,
    src: &'a [A],
}

impl<A: Number> Block<'_, A> {
    fn multiply<C: Number>(&self, dst: &mut Tile<'_, C>) -> Result<(), OneDnnError> {
        self.product.run(self.src, self.weights, self.columns, dst)
    }
}

impl Linear {
    /// Numbers in a row of results.
    pub(crate) fn outer(&self) -> usize {
        self.outer
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.slices.iter().map(|(weights, _)| weights.bytes()).sum()
    }

    /// Runs the layer on the threads of the pool that it is called in. The numbers of rows are multiples of [`ROW_STEP`].
    ///
    /// # Panics
    /// When operand or target are of other formats than the layer.
    pub(crate) fn forward(&self, src: Operand<'_>, dst: Target<'_>) -> Result<(), OneDnnError> {
        match (src, dst) {
            (Operand::F32(src), Target::F32(dst)) => self.multiply(src, dst),
            (Operand::Bf16(src), Target::F32(dst)) => self.multiply(src, dst),
            (Operand::Bf16(src), Target::Bf16(dst)) => self.multiply(src, dst),
            (Operand::F32(src), Target::Sum(dst)) => self.add(src, dst),
            (Operand::Bf16(src), Target::Sum(dst)) => self.add(src, dst),
            (Operand::Int8(src, scales), Target::F32(dst)) => {
                self.multiply_bytes(src, scales, dst, |product, tile| {
                    finish_bytes(product, self.form.activation, tile);
                })
            }
            (Operand::Int8(src, scales), Target::Bf16(dst)) => {
                self.multiply_bytes(src, scales, dst, |product, tile| {
                    finish_bytes(product, self.form.activation, tile);
                })
            }
            (Operand::Int8(src, scales), Target::Sum(dst)) => {
                self.multiply_bytes(src, scales, dst, add_bytes)
            }
            (Operand::F32(_), Target::Bf16(_)) => panic!("layers in f32 give f32"),
        }
    }

    /// The library is several times as fast where rows of results lie back to back: a slice's are made in memory of this
    /// thread, which stays in its caches.
    fn multiply<A: Number, C: Spare>(&self, src: &[A], dst: &mut [C]) -> Result<(), OneDnnError> {
        self.by_tiles(src, dst, |block, tile| {
            if tile.columns() == self.outer {
                return block.multiply(tile);
            }
            let (rows, width) = (tile.rows(), tile.columns());
            C::with_spare(rows * width, |dense| {
                block.multiply(&mut Tile::whole(dense, width))?;
                for (i, row) in dense.chunks_exact(width).enumerate() {
                    tile.row_mut(i).copy_from_slice(row);
                }
                Ok(())
            })
        })
    }

    fn add<A: Number>(&self, src: &[A], dst: &mut [f32]) -> Result<(), OneDnnError> {
        self.by_tiles(src, dst, |block, tile| {
            let (rows, width) = (tile.rows(), tile.columns());
            f32::with_spare(rows * width, |dense| {
                block.multiply(&mut Tile::whole(dense, width))?;
                for (i, row) in dense.chunks_exact(width).enumerate() {
                    vector::add(tile.row_mut(i), row);
                }
                Ok(())
            })
        })
    }

    /// `finish` gets a product, and where it goes.
    fn multiply_bytes<C: Number>(
        &self,
        src: &[i8],
        scales: &[f32],
        dst: &mut [C],
        finish: impl Fn(ByteProduct<'_>, &mut Tile<'_, C>) + Sync,
    ) -> Result<(), OneDnnError> {
        self.by_tiles(src, dst, |block, tile| {
            let (rows, width) = (tile.rows(), tile.columns());
            f32::with_spare(rows * width, |sums| {
                block.multiply(&mut Tile::whole(sums, width))?;
                let product = ByteProduct {
                    sums,
                    row_scales: &scales[block.first..block.first + rows],
                    bias: &block.columns.bias,
                };
                finish(product, tile);
                Ok(())
            })
        })
    }

    /// Runs something for each tile of the result.
    fn by_tiles<A: Number, C: Number>(
        &self,
        src: &[A],
        dst: &mut [C],
        run: impl Fn(Block<'_, A>, &mut Tile<'_, C>) -> Result<(), OneDnnError> + Sync,
    ) -> Result<(), OneDnnError> {
        let rows = src.len() / self.inner;
        assert_eq!((rows % ROW_STEP, dst.len()), (0, rows * self.outer));
        let blocks: Vec<Range<usize>> = (0..rows)
            .step_by(BLOCK_ROWS)
            .map(|first| first..rows.min(first + BLOCK_ROWS))
            .collect();
        let tiles = tiles(dst, self.outer, &blocks, &self.ranges);
        tiles
            .into_par_iter()
            .enumerate()
            .try_for_each(|(i, mut tile)| {
                let (slice, rows) = (i / blocks.len(), &blocks[i % blocks.len()]);
                let (weights, columns) = &self.slices[slice];
                let block = Block {
                    product: self.product(tile.rows(), slice)?,
                    weights,
                    columns,
                    first: rows.start,
                    src: &src[rows.start * self.inner..rows.end * self.inner],
                };
                run(block, &mut tile)
            })
    }

    fn product(&self, rows: usize, slice: usize) -> Result<&Product, OneDnnError> {
        let width = self.ranges[slice].len();
        let of_width = &self.products.0[usize::from(width != self.ranges[0].len())];
        of_width[rows / ROW_STEP - 1].get_or(|| {
            let right = Right::Packed(&self.slices[slice].0);
            Product::new(self.library, self.shape(rows, width), right)
        })
    }

    fn shape(&self, rows: usize, columns: usize) -> Shape {
        let is_bytes = self.form.precision == Precision::Int8;
        Shape {
            rows,
            inner: self.inner,
            columns,
            format: operands(self.form.precision),
            src_stride: self.inner,
            // Sums of bytes are finished here, since the library knows no scales by row.
            dst_format: if is_bytes { Format::F32 } else { self.form.dst },
            dst_stride: columns,
            has_scales: is_bytes,
            has_bias: !is_bytes,
            activation: self.form.activation.filter(|_| !is_bytes),
        }
    }
}
