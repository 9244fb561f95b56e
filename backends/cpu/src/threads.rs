//! The threads of a replica, and the cores that they stay on.

use embedgate_core::{BackendError, machine::cores::Core};

use crate::core_assignments::{CORE_ASSIGNMENTS, CoreAssignment};

/// The threads of a replica.
pub(crate) struct Threads {
    pub(crate) pool: rayon::ThreadPool,
    /// Held, that no other replica takes the cores of the pool before there are no others.
    _assignment: CoreAssignment,
}

impl Threads {
    /// Starts threads that stay on cores of their own, of these; where there are none the system chooses.
    pub(crate) fn start(threads: usize, cores: &[Core]) -> Result<Self, BackendError> {
        let assignment = CORE_ASSIGNMENTS.take(threads, cores);
        let cores = assignment.cores.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .start_handler(move |i| {
                if let Some(core) = cores.get(i)
                    && !core.pin_this_thread()
                {
                    tracing::debug!("the system does not let a thread stay on {core:?}");
                }
            })
            .thread_name(|i| format!("cpu-{i}"))
            .build()
            .map_err(|e| BackendError::Load(format!("cannot start {threads} threads: {e}")))?;
        Ok(Self {
            pool,
            _assignment: assignment,
        })
    }
}
