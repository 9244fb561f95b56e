//! A set of heads.

use std::{fmt, ops::Range};

use super::{COUNT, Head, HeadForm, Reads};
use crate::{Pooling, pooling::PoolingMode};

/// A set of heads: the outputs that a forward pass is asked for, or that a model gives.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Outputs(u8);

const _: () = assert!(COUNT <= u8::BITS as usize, "each head has a bit");

impl Outputs {
    /// Dense vectors alone.
    pub const DENSE: Self = Self::of(&[Head::Dense]);
    /// Everything that bge-m3 gives: dense, sparse and multi-vector.
    pub const BGE_M3: Self = Self::of(&[Head::Dense, Head::Sparse, Head::MultiVector]);
    /// Scores alone: everything that a cross-encoder gives.
    pub const SCORE: Self = Self::of(&[Head::Score]);

    /// The set of these heads.
    #[must_use]
    pub const fn of(heads: &[Head]) -> Self {
        let mut set = Self(0);
        let mut i = 0;
        while i < heads.len() {
            set = set.with(heads[i]);
            i += 1;
        }
        set
    }

    /// The set with one more head.
    #[must_use]
    pub const fn with(self, head: Head) -> Self {
        Self(self.0 | 1 << head as u8)
    }

    /// The set with one more head if a condition holds.
    #[must_use]
    pub fn with_if(self, is_there: bool, head: Head) -> Self {
        if is_there { self.with(head) } else { self }
    }

    /// Returns true when the set has this head.
    #[must_use]
    pub fn has(self, head: Head) -> bool {
        self.with(head) == self
    }

    /// Everything in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns true when `other` is a subset.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.union(other) == self
    }

    /// Returns true when the set has no head.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The heads of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Head> + Clone {
        Head::ALL.into_iter().filter(move |head| self.has(*head))
    }

    /// Returns true when one of the heads gives a vector for each token.
    #[must_use]
    pub fn have_rows(self) -> bool {
        self.iter()
            .any(|head| matches!(head.form(), HeadForm::Rows { .. }))
    }

    /// Returns the tokens whose rows the results need, of a model that pools so; a cross-encoder's pooling is that of its head.
    #[must_use]
    pub fn selection(self, pooling: Pooling) -> TokenSelection {
        let reads_all = self.iter().any(|head| head.facts().reads == Reads::All);
        match pooling.only() {
            Some(PoolingMode::Cls) if !reads_all => TokenSelection::First,
            Some(PoolingMode::Last) if !reads_all => TokenSelection::Last,
            _ => TokenSelection::All,
        }
    }

    /// Returns the output that a model is tried and timed with, if it gives all of these: scores where it gives them,
    /// else dense vectors, else the first of the others.
    #[must_use]
    pub fn main(self) -> Self {
        if self.has(Head::Score) {
            return Self::SCORE;
        }
        let first = self.iter().next().unwrap_or(Head::Dense);
        Self::of(&[first])
    }
}

impl FromIterator<Head> for Outputs {
    fn from_iter<T: IntoIterator<Item = Head>>(heads: T) -> Self {
        heads.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Head::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The tokens of each sequence whose rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSelection {
    /// All tokens.
    All,
    /// The first token.
    First,
    /// The last token.
    Last,
}

impl TokenSelection {
    /// The wanted rows of a sequence with these rows.
    #[must_use]
    pub fn of(self, rows: Range<usize>) -> Range<usize> {
        match self {
            Self::All => rows,
            Self::First => rows.start..rows.start + 1,
            Self::Last => rows.end - 1..rows.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_a_set() {
        assert!(Outputs::BGE_M3.contains(Outputs::DENSE));
        assert!(!Outputs::DENSE.contains(Outputs::BGE_M3));
        assert_eq!(Outputs::BGE_M3.to_string(), "dense, sparse, multi-vector");
        let again: Outputs = Outputs::BGE_M3.iter().collect();
        assert_eq!(again, Outputs::BGE_M3);
        assert!(Outputs::default().is_empty());
    }
}
