//! The packing of a layer's weights: in which slices, and in which format.

use std::ops::Range;

use half::bf16;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{BLOCK_ROWS, Form, Linear, Products};
use crate::{
    onednn::{Columns, Library, OneDnnError, Product, Right, Weights},
    precision::Precision,
    vector::{quantize, rotation, round},
};

/// Weights of a slice, which stays in a core's second cache: 512 Ki numbers are 1 MiB of bfloat16.
const SLICE_WEIGHTS: usize = 1 << 19;
/// Slices below this many columns lose more to small products than threads gain.
const LEAST_SLICE: usize = 64;

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
                round(values, &mut rounded);
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
