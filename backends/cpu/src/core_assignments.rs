//! Which cores the threads of all replicas of all models are on, so that each has one of its own as far as there are enough.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use embedgate_core::machine::cores::Core;

/// The number of threads that stay on each core.
#[derive(Default)]
pub(crate) struct CoreAssignments(Mutex<BTreeMap<Core, usize>>);

/// The assignments of this process.
pub(crate) static CORE_ASSIGNMENTS: CoreAssignments = CoreAssignments(Mutex::new(BTreeMap::new()));

/// The core of each thread of a replica; none where the system chooses. They are free again when this is dropped.
pub(crate) struct CoreAssignment {
    pub(crate) cores: Vec<Core>,
    assignments: &'static CoreAssignments,
}

impl CoreAssignments {
    /// Takes a core for each thread, of these the ones with the fewest.
    pub(crate) fn take(&'static self, threads: usize, among: &[Core]) -> CoreAssignment {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |_| {
            let n_threads = |core: &&Core| taken.get(core).copied().unwrap_or(0);
            let core = *among.iter().min_by_key(n_threads)?;
            *taken.entry(core).or_default() += 1;
            Some(core)
        };
        CoreAssignment {
            cores: (0..threads).map_while(next).collect(),
            assignments: self,
        }
    }
}

impl Drop for CoreAssignment {
    fn drop(&mut self) {
        let taken = self.assignments.0.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        for core in &self.cores {
            if let Some(n) = taken.get_mut(core) {
                *n -= 1;
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use embedgate_core::machine::cores::physical;

    use super::*;

    #[test]
    fn each_thread_has_the_core_with_the_fewest_and_leaves_it_to_the_next() {
        let assignments: &'static CoreAssignments = Box::leak(Box::default());
        let all = physical();
        let n = all.len();
        let first = assignments.take(1, &all);
        assert_eq!(first.cores, all[..1]);
        // The others, and round again.
        let others = assignments.take(n, &all);
        assert_eq!(others.cores[..n - 1], all[1..]);
        assert_eq!(others.cores[n - 1], all[0]);
        drop(first);
        drop(others);
        assert_eq!(assignments.take(n, &all).cores, all);
        assert!(assignments.take(n, &[]).cores.is_empty());
    }
}
