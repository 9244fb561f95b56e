//! Linear layers: weights packed once, in slices of columns that threads share among themselves.

use std::{cell::RefCell, ops::Range};

use embedgate_core::encoder::Activation;
use half::bf16;
use rayon::iter::{
    IndexedParallelIterator, IntoParallelIterator, IntoParallelRefIterator, ParallelIterator,
};

use crate::{
    buffers::at_least,
    compiled::Compiled,
    onednn::{
        Columns, Format, Library, Number, OneDnnError, Product, Right, Shape, Tile, Weights, tiles,
    },
    precision::{Precision, operands},
    vector::{self, add_bytes, finish_bytes, quantize, rotation},
};

/// Rows of one product. Products of more are no faster, and each number of rows is a product to compile: operands are
/// padded to a multiple of [`ROW_STEP`] and go in blocks of this many, so that there are few.
pub(crate) const BLOCK_ROWS: usize = 128;
/// Rows of an AMX tile; other instructions take 6 to 14 rows at once.
pub(crate) const ROW_STEP: usize = 16;
const N_STEPS: usize = BLOCK_ROWS / ROW_STEP;
/// Weights of a slice, which stays in a core's second cache: 512 Ki numbers are 1 MiB of bfloat16.
const SLICE_WEIGHTS: usize = 1 << 19;
/// Slices below this many columns lose more to small products than threads gain.
const LEAST_SLICE: usize = 64;

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

impl Linear {
    /// Packs a layer, on the threads of the pool that it is called in. `weight` has shape `(outer, inner)`, row-major, as
    /// PyTorch has it, `bias` shape `(outer)`.
    pub(crate) fn pack(
        library: &'static Library,
        form: Form,
        weight: &[f32],
        bias: &[f32],
    ) -> Result<Self, OneDnnError> {
        let (outer, inner) = (bias.len(), weight.len() / bias.len());
        let mut linear = Self {
            library,
            form,
            inner,
            outer,
            ranges: slices(outer, inner, form.threads),
            slices: Vec::new(),
            products: Products::default(),
        };
        let pack = |range: &Range<usize>| {
            let values = &weight[range.start * inner..range.end * inner];
            linear.pack_slice(values, &bias[range.clone()])
        };
        linear.slices = linear
            .ranges
            .par_iter()
            .map(pack)
            .collect::<Result<_, _>>()?;
        Ok(linear)
    }

    fn pack_slice(&self, values: &[f32], bias: &[f32]) -> Result<(Weights, Columns), OneDnnError> {
        let (inner, columns) = (self.inner, bias.len());
        let like = Product::new(self.library, self.shape(BLOCK_ROWS, columns), Right::Any)?;
        let mut scales = Vec::new();
        let weights = match self.form.precision {
            Precision::F32 => Weights::pack(&like, values)?,
            Precision::Bf16 => {
                let mut rounded = vec![bf16::ZERO; values.len()];
                vector::round(values, &mut rounded);
                Weights::pack(&like, &rounded)?
            }
            Precision::Int8 => {
                let (mut bytes, mut row) = (vec![0; values.len()], vec![0.0; inner]);
                let rows = values.chunks_exact(inner);
                let rows = rows.zip(bytes.chunks_exact_mut(inner));
                // Both operands are rotated, without the rotation's own scale.
                let factor = 1.0 / rotation(inner) as f32;
                scales = rows
                    .map(|(values, bytes)| quantize(values, &mut row, bytes) * factor)
                    .collect();
                Weights::pack(&like, &bytes)?
            }
        };
        let bias = bias.to_vec();
        Ok((weights, Columns { bias, scales }))
    }

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
                self.multiply_bytes(src, scales, dst, |sums, scales, bias, tile| {
                    finish_bytes(sums, scales, bias, self.form.activation, tile);
                })
            }
            (Operand::Int8(src, scales), Target::Bf16(dst)) => {
                self.multiply_bytes(src, scales, dst, |sums, scales, bias, tile| {
                    finish_bytes(sums, scales, bias, self.form.activation, tile);
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
        self.by_tiles(src, dst, |product, (weights, columns), _, src, tile| {
            if tile.columns() == self.outer {
                return product.run(src, weights, columns, tile);
            }
            let (rows, width) = (tile.rows(), tile.columns());
            C::with_spare(rows * width, |dense| {
                product.run(src, weights, columns, &mut Tile::whole(dense, width))?;
                for (i, row) in dense.chunks_exact(width).enumerate() {
                    tile.row_mut(i).copy_from_slice(row);
                }
                Ok(())
            })
        })
    }

    fn add<A: Number>(&self, src: &[A], dst: &mut [f32]) -> Result<(), OneDnnError> {
        self.by_tiles(src, dst, |product, (weights, columns), _, src, tile| {
            let (rows, width) = (tile.rows(), tile.columns());
            f32::with_spare(rows * width, |dense| {
                product.run(src, weights, columns, &mut Tile::whole(dense, width))?;
                for (i, row) in dense.chunks_exact(width).enumerate() {
                    vector::add(tile.row_mut(i), row);
                }
                Ok(())
            })
        })
    }

    /// `finish` gets sums, scales of their rows, the bias, and where they go.
    fn multiply_bytes<C: Number>(
        &self,
        src: &[i8],
        scales: &[f32],
        dst: &mut [C],
        finish: impl Fn(&[f32], &[f32], &[f32], &mut Tile<'_, C>) + Sync,
    ) -> Result<(), OneDnnError> {
        self.by_tiles(src, dst, |product, (weights, columns), first, src, tile| {
            let (rows, width) = (tile.rows(), tile.columns());
            f32::with_spare(rows * width, |sums| {
                product.run(src, weights, columns, &mut Tile::whole(sums, width))?;
                finish(sums, &scales[first..first + rows], &columns.bias, tile);
                Ok(())
            })
        })
    }

    /// Runs something for each tile of the result: with the product of its size, its slice of the layer, its first row,
    /// and the operand from there on.
    fn by_tiles<A: Number, C: Number>(
        &self,
        src: &[A],
        dst: &mut [C],
        run: impl Fn(
            &Product,
            &(Weights, Columns),
            usize,
            &[A],
            &mut Tile<'_, C>,
        ) -> Result<(), OneDnnError>
        + Sync,
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
                let (slice, block) = (i / blocks.len(), &blocks[i % blocks.len()]);
                let src = &src[block.start * self.inner..block.end * self.inner];
                let product = self.product(tile.rows(), slice)?;
                run(product, &self.slices[slice], block.start, src, &mut tile)
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

/// A number of which each thread keeps some to spare, between one product and the next. They are bounded by the size of a
/// tile, and stay until the thread ends.
trait Spare: Number {
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R;
}

impl Spare for f32 {
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local! {
            static SPARE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        SPARE.with_borrow_mut(|all| use_them(at_least(all, n)))
    }
}

impl Spare for bf16 {
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local! {
            static SPARE: RefCell<Vec<bf16>> = const { RefCell::new(Vec::new()) };
        }
        SPARE.with_borrow_mut(|all| use_them(at_least(all, n)))
    }
}

/// Columns of each slice: as many slices for each thread, all alike but the last, of whole cache lines.
fn slices(outer: usize, inner: usize, threads: usize) -> Vec<Range<usize>> {
    let fitting = (SLICE_WEIGHTS / inner).max(4 * LEAST_SLICE);
    let n = outer.div_ceil(fitting).next_multiple_of(threads);
    let width = outer.div_ceil(n).next_multiple_of(LEAST_SLICE);
    (0..outer)
        .step_by(width)
        .map(|first| first..outer.min(first + width))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_columns_and_every_thread_has_some() {
        for (outer, inner, threads, expected) in [
            (3072, 1024, 2, vec![512; 6]),
            (1024, 4096, 2, vec![256; 4]),
            (1024, 1024, 2, vec![512; 2]),
            (384, 384, 2, vec![192; 2]),
            (384, 1536, 4, vec![128; 3]),
            (64, 32, 2, vec![64]),
            (1, 32, 2, vec![1]),
            (1152, 384, 2, vec![576; 2]),
            (100, 32, 2, vec![64, 36]),
        ] {
            let slices = slices(outer, inner, threads);
            let widths: Vec<usize> = slices.iter().map(Range::len).collect();
            assert_eq!(widths, expected, "{outer} x {inner}, {threads}");
            assert!(slices.windows(2).all(|two| two[0].end == two[1].start));
        }
    }
}
