//! Columns of text: the first to the left, all others to the right.

use std::fmt;

/// A table in the making.
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Begins with a row of headings.
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self(vec![head.into_iter().map(Into::into).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in &self.0 {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "{cell:<0$}", width(column))?,
                    _ => write!(f, "  {cell:>0$}", width(column))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
