//! The normalizations around attention and the feed-forward layer, and the sums with what they read.

use embedgate_core::encoder::Norms;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use crate::{
    buffers::{ROWS_AT_ONCE, rounding::Rounding},
    linear::{Linear, Operand, Target},
    load::{LoadError, Loader},
    memory::at_least,
    onednn::OneDnnError,
    vector::{Norm, add},
};

/// The normalizations around attention or the feed-forward layer.
pub(super) enum Around {
    /// `x = norm(x + f(x))`.
    After(Norm),
    /// `x = then(x + first(x + f(x)))`.
    Twice { first: Norm, then: Norm },
    /// `x = x + after(f(before(x)))`.
    Before {
        before: Option<Norm>,
        after: Option<Norm>,
    },
}

/// The rows of one step that layers add to, and memory for what they add.
pub(super) struct Stream<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) width: usize,
    /// Holds what is normalized before it is added.
    pub(super) added: &'a mut Vec<f32>,
}

impl Around {
    /// Reads the normalizations.
    pub(super) fn load(norms: &Norms, loader: &Loader<'_>) -> Result<Self, LoadError> {
        Ok(match norms {
            Norms::After(norm) => Self::After(loader.norm(norm)?),
            Norms::Twice { first, then } => Self::Twice {
                first: loader.norm(first)?,
                then: loader.norm(then)?,
            },
            Norms::Before { before, after } => Self::Before {
                before: loader.norm_if_any(before.as_ref())?,
                after: loader.norm_if_any(after.as_ref())?,
            },
        })
    }

    /// Adds what the last linear layer makes of `operand` to the stream, not yet with the normalization of the sum.
    pub(super) fn add(
        &self,
        last: &Linear,
        operand: Operand<'_>,
        stream: &mut Stream<'_>,
    ) -> Result<(), OneDnnError> {
        let (norm, is_of_sum) = match self {
            Self::Before {
                after: Some(norm), ..
            } => (norm, false),
            Self::Twice { first, .. } => (first, true),
            Self::After(_) | Self::Before { after: None, .. } => {
                return last.forward(operand, Target::Sum(stream.x));
            }
        };
        let added = at_least(stream.added, stream.x.len());
        last.forward(operand, Target::F32(added))?;
        let n = ROWS_AT_ONCE * stream.width;
        let blocks = stream.x.par_chunks_mut(n).zip(added.par_chunks_mut(n));
        blocks.for_each(|(x, added)| {
            if is_of_sum {
                add(added, x);
            }
            norm.apply(added);
            add(x, added);
        });
        Ok(())
    }

    /// Ends this part of a layer: normalizes the sum where it is to be. Returns what `next` reads of it; with none that
    /// follows, what is returned means nothing.
    pub(super) fn end<'a>(
        &self,
        next: Option<&Self>,
        rounding: &'a mut Rounding,
        x: &'a mut [f32],
        width: usize,
    ) -> Operand<'a> {
        match (self, next) {
            (Self::After(norm) | Self::Twice { then: norm, .. }, _) => rounding.normalize(norm, x),
            (Self::Before { .. }, Some(next)) => next.read(rounding, x, width),
            (Self::Before { .. }, None) => Operand::F32(x),
        }
    }

    /// Returns the rows that the first linear layer reads, of `x`.
    pub(super) fn read<'a>(
        &self,
        rounding: &'a mut Rounding,
        x: &'a [f32],
        width: usize,
    ) -> Operand<'a> {
        let before = match self {
            Self::After(_) | Self::Twice { .. } => None,
            Self::Before { before, .. } => before.as_ref(),
        };
        rounding.normalized(before, x, width)
    }
}
