//! Columns of text: the first ones to the left, all others to the right.
//!
//! `comfy-table` has colors, frames and lines that wrap; nothing here wants them.

use std::fmt;

/// A table in the making.
pub struct Table {
    n_left: usize,
    /// The headings first.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins with a row of headings.
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self {
            n_left: 1,
            rows: vec![head.into_iter().map(Into::into).collect()],
        }
    }

    /// Aligns so many columns to the left, instead of one.
    #[must_use]
    pub fn left(self, n_left: usize) -> Self {
        Self { n_left, ..self }
    }

    /// Adds a row. Cells that have no heading are remarks: they are written as they are.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    f.write_str("  ")?;
                }
                match widths.get(column) {
                    Some(width) if column < self.n_left => write!(f, "{cell:<width$}")?,
                    Some(width) => write!(f, "{cell:>width$}")?,
                    None => f.write_str(cell)?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["target", "load", "p50 µs"]).left(2);
        table.row(["a", "1", "10.25"].map(str::to_owned));
        table.row(["böckchen", "8 at once", "3.50", "(a remark)"].map(str::to_owned));
        let expected = "target    load       p50 µs\n\
                        a         1           10.25\n\
                        böckchen  8 at once    3.50  (a remark)\n";
        assert_eq!(table.to_string(), expected);
    }
}
