//! One value for each head of a set.

use super::{COUNT, Head, Outputs};

/// One value for each head of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerHead<T>([Option<T>; COUNT]);

impl<T> Default for PerHead<T> {
    fn default() -> Self {
        Self([const { None }; COUNT])
    }
}

impl<T> PerHead<T> {
    /// Makes a value for each head of a set.
    pub fn of(heads: Outputs, mut value: impl FnMut(Head) -> T) -> Self {
        heads.iter().map(|head| (head, value(head))).collect()
    }

    /// Returns the value of a head.
    #[must_use]
    pub fn get(&self, head: Head) -> Option<&T> {
        self.0[head as usize].as_ref()
    }

    /// Returns the value of a head, to change it.
    pub fn get_mut(&mut self, head: Head) -> Option<&mut T> {
        self.0[head as usize].as_mut()
    }

    /// Sets the value of a head.
    pub fn set(&mut self, head: Head, value: T) {
        self.0[head as usize] = Some(value);
    }

    /// Takes the value of a head away.
    pub fn take(&mut self, head: Head) -> Option<T> {
        self.0[head as usize].take()
    }

    /// Takes the value of a head away, and returns it alone.
    #[must_use]
    pub fn take_only(&mut self, head: Head) -> Self {
        let mut alone = Self::default();
        alone.0[head as usize] = self.take(head);
        alone
    }

    /// The heads that have a value, each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Head, &T)> {
        Head::ALL.into_iter().zip(&self.0).filter_map(with_value)
    }

    /// The heads that have a value, each with its value, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Head, &mut T)> {
        Head::ALL
            .into_iter()
            .zip(&mut self.0)
            .filter_map(with_value)
    }

    /// The heads that have a value.
    #[must_use]
    pub fn heads(&self) -> Outputs {
        self.iter().map(|(head, _)| head).collect()
    }

    /// Returns true when no head has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// A head with its value, if it has one.
fn with_value<O: IntoIterator>((head, value): (Head, O)) -> Option<(Head, O::Item)> {
    Some((head, value.into_iter().next()?))
}

impl<T> IntoIterator for PerHead<T> {
    type Item = (Head, T);
    type IntoIter = std::iter::FilterMap<
        std::iter::Zip<std::array::IntoIter<Head, COUNT>, std::array::IntoIter<Option<T>, COUNT>>,
        fn((Head, Option<T>)) -> Option<(Head, T)>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        Head::ALL.into_iter().zip(self.0).filter_map(with_value)
    }
}

impl<T> FromIterator<(Head, T)> for PerHead<T> {
    fn from_iter<I: IntoIterator<Item = (Head, T)>>(values: I) -> Self {
        let mut all = Self::default();
        for (head, value) in values {
            all.set(head, value);
        }
        all
    }
}
