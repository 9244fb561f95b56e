//! The levels of Parquet's nested columns.

/// The spread of numbers over rows: the definition and the repetition level of each. A column with one number in each
/// row has no levels.
///
/// Source: Parquet's documentation, "Nested Encoding" (Dremel's levels).
#[derive(Default)]
pub(super) struct Levels {
    pub(super) definition: Option<Vec<i16>>,
    pub(super) repetition: Option<Vec<i16>>,
}

impl Levels {
    /// Lists of so many numbers.
    pub(super) fn of_lists(lengths: impl Iterator<Item = usize>) -> Self {
        let (mut definition, mut repetition) = (Vec::new(), Vec::new());
        for n in lengths {
            let one_at_least = n.max(1);
            definition.extend(std::iter::repeat_n(i16::from(n > 0), one_at_least));
            repetition.push(0);
            repetition.extend(std::iter::repeat_n(1, one_at_least - 1));
        }
        Self {
            definition: Some(definition),
            repetition: Some(repetition),
        }
    }

    /// Lists of so many rows of a width, which is not 0.
    pub(super) fn of_rows(shapes: impl Iterator<Item = (usize, usize)>) -> Self {
        let (mut definition, mut repetition) = (Vec::new(), Vec::new());
        for (rows, width) in shapes {
            if rows == 0 {
                definition.push(0);
                repetition.push(0);
            }
            definition.extend(std::iter::repeat_n(2, rows * width));
            for row in 0..rows {
                repetition.push(i16::from(row > 0));
                repetition.extend(std::iter::repeat_n(2, width - 1));
            }
        }
        Self {
            definition: Some(definition),
            repetition: Some(repetition),
        }
    }
}
