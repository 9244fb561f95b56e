//! Parts of a matrix that several threads write at once.

use std::{marker::PhantomData, ops::Range};

/// Some rows and columns of a matrix, for one thread to write.
pub(crate) struct Tile<'a, T> {
    first: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its numbers, as a slice would be.
unsafe impl<T: Send> Send for Tile<'_, T> {}

impl<'a, T> Tile<'a, T> {
    /// A whole matrix: `columns` numbers a row.
    pub(crate) fn whole(data: &'a mut [T], columns: usize) -> Self {
        Self {
            rows: data.len() / columns,
            first: data.as_mut_ptr(),
            columns,
            stride: columns,
            matrix: PhantomData,
        }
    }

    /// Number of its rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of its columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Numbers from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Its first number.
    pub(super) fn pointer(&mut self) -> *mut T {
        self.first
    }

    /// The tile's part of a row.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: the row is within the matrix, and its part is this tile's alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(i * self.stride), self.columns) }
    }
}

/// Cuts tiles out of a matrix of `width` numbers a row: each of these ranges of columns, in each of these ranges of rows,
/// those with the same columns one after the other.
///
/// # Panics
/// When ranges overlap, are not ascending, or exceed the matrix.
pub(crate) fn tiles<'a, T>(
    data: &'a mut [T],
    width: usize,
    rows: &[Range<usize>],
    columns: &[Range<usize>],
) -> Vec<Tile<'a, T>> {
    check(rows, data.len() / width, "rows");
    check(columns, width, "columns");
    let first = data.as_mut_ptr();
    let tile = |columns: &Range<usize>, rows: &Range<usize>| Tile {
        // SAFETY: row and column are within the matrix. Tiles do not overlap: rows or columns differ.
        first: unsafe { first.add(rows.start * width + columns.start) },
        rows: rows.len(),
        columns: columns.len(),
        stride: width,
        matrix: PhantomData,
    };
    let of_columns = |columns| rows.iter().map(move |rows| tile(columns, rows));
    columns.iter().flat_map(of_columns).collect()
}

fn check(ranges: &[Range<usize>], end: usize, what: &str) {
    let is_ascending = ranges.windows(2).all(|two| two[0].end <= two[1].start);
    let is_within = ranges
        .iter()
        .all(|range| range.start < range.end && range.end <= end);
    assert!(is_ascending && is_within, "{what} {ranges:?} of {end}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_matrix_and_each_writes_its_own() {
        let (width, rows) = (5, 7);
        let mut data = vec![0; width * rows];
        let mut all = tiles(&mut data, width, &[0..3, 3..6, 6..7], &[0..2, 2..5]);
        assert_eq!(
            all.iter()
                .map(|t| (t.rows(), t.columns()))
                .collect::<Vec<_>>(),
            [(3, 2), (3, 2), (1, 2), (3, 3), (3, 3), (1, 3)]
        );
        std::thread::scope(|scope| {
            for (n, tile) in all.iter_mut().enumerate() {
                scope.spawn(move || {
                    for i in 0..tile.rows() {
                        tile.row_mut(i).iter_mut().for_each(|x| *x += n + 1);
                    }
                });
            }
        });
        drop(all);
        assert_eq!(data[0..5], [1, 1, 4, 4, 4]);
        assert_eq!(data[30..35], [3, 3, 6, 6, 6]);
    }

    #[test]
    #[should_panic(expected = "columns")]
    fn columns_that_overlap_are_refused() {
        let rows = std::slice::from_ref(&(0..1));
        tiles(&mut [0; 10], 5, rows, &[0..3, 2..5]);
    }
}
