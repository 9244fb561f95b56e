//! Which of a model's replicas are there, so that each has cores of its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The numbers of the replicas that are there.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeSet<usize>>>);

/// A replica's number. It is free again when this is dropped.
pub(crate) struct Place {
    pub(crate) number: usize,
    places: Places,
}

impl Places {
    /// Takes the least number that is free.
    pub(crate) fn take(&self) -> Place {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..).find(|number| taken.insert(*number));
        Place {
            number: free.unwrap_or(0),
            places: self.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.0.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_lost_leaves_its_place_to_the_next() {
        let places = Places::default();
        let (first, second) = (places.take(), places.take());
        assert_eq!([first.number, second.number], [0, 1]);
        drop(first);
        let (third, fourth) = (places.take(), places.take());
        assert_eq!([third.number, fourth.number], [0, 2]);
    }
}
