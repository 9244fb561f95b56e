//! The description of a tensor in a checkpoint.

use crate::dtype::Dtype;

/// A tensor of a checkpoint: a part of a storage, which is a file of the archive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Numbers from one element to the next, in each dimension.
    pub(crate) strides: Vec<usize>,
    /// Numbers of the storage before the first element.
    pub(crate) offset: usize,
    /// The storage's name.
    pub(crate) storage: String,
}

impl TensorInfo {
    /// Number of elements; none where that is no `usize`.
    pub(crate) fn elements(&self) -> Option<usize> {
        product(&self.shape)
    }

    /// True where elements lie row by row, without gaps.
    pub(crate) fn is_row_major(&self) -> bool {
        self.is_dense(self.shape.iter().zip(&self.strides).rev())
    }

    /// True where elements lie column by column, without gaps: a transposed tensor was saved.
    pub(crate) fn is_column_major(&self) -> bool {
        self.is_dense(self.shape.iter().zip(&self.strides))
    }

    /// Follows the dimensions from the one that changes fastest. The stride of a dimension of one element means nothing.
    fn is_dense<'a>(&self, dimensions: impl Iterator<Item = (&'a usize, &'a usize)>) -> bool {
        let mut expected = 1_usize;
        for (&n, &stride) in dimensions {
            if n > 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(n);
        }
        self.strides.len() == self.shape.len()
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn info(shape: &[usize], strides: &[usize]) -> TensorInfo {
        TensorInfo {
            dtype: Dtype::F32,
            shape: shape.into(),
            strides: strides.into(),
            offset: 0,
            storage: "0".into(),
        }
    }

    #[test]
    fn layouts_are_told_from_strides() {
        let row = info(&[2, 3], &[3, 1]);
        assert!(row.is_row_major() && !row.is_column_major());
        let column = info(&[2, 3], &[1, 2]);
        assert!(!column.is_row_major() && column.is_column_major());
        let part = info(&[2, 3], &[4, 1]);
        assert!(!part.is_row_major() && !part.is_column_major());
        assert!(info(&[1, 3], &[7, 1]).is_row_major());
        assert!(info(&[], &[]).is_row_major());
        assert_eq!(info(&[usize::MAX, 2], &[1, 1]).elements(), None);
    }
}
