//! The running of primitives, each on the thread that asks for it.

use std::{cell::RefCell, ffi::c_int};

use super::{
    aligned::Aligned,
    ffi::{self, Argument},
    library::Library,
    object::{OneDnnError, Owned, check},
};

/// The data that a thread needs to run products: they are made at the thread's first product.
struct Worker {
    stream: Owned,
    scratch: Aligned,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

impl Library {
    /// Runs a primitive on this thread.
    ///
    /// # Safety
    /// The data of all memories must be alive, as large as their descriptors say, and written by nobody else meanwhile.
    pub(super) unsafe fn execute(
        &self,
        primitive: &Owned,
        scratch: Option<(&Owned, usize)>,
        given: &[(c_int, &Owned)],
    ) -> Result<(), OneDnnError> {
        WORKER.with_borrow_mut(|worker| {
            let worker = match worker {
                Some(worker) => worker,
                none => none.insert(self.worker()?),
            };
            let mut arguments = Vec::with_capacity(given.len() + 1);
            arguments.extend(given.iter().map(|(kind, memory)| Argument {
                kind: *kind,
                memory: memory.handle,
            }));
            let mut held = None;
            if let Some((descriptor, bytes)) = scratch {
                worker.scratch.grow(bytes);
                let memory = self.memory(descriptor.handle, worker.scratch.pointer_mut())?;
                arguments.push(Argument {
                    kind: ffi::ARG_SCRATCHPAD,
                    memory: memory.handle,
                });
                held = Some(memory);
            }
            // SAFETY: the caller vouches for the data; the scratch memory is this thread's own, and large enough.
            let status = unsafe {
                (self.functions.dnnl_primitive_execute)(
                    primitive.handle,
                    worker.stream.handle,
                    c_int::try_from(arguments.len()).unwrap_or(c_int::MAX),
                    arguments.as_ptr(),
                )
            };
            drop(held);
            check("a product", status)
        })
    }

    fn worker(&self) -> Result<Worker, OneDnnError> {
        self.use_this_thread_alone();
        let stream = Owned::new(
            "a stream",
            self.functions.dnnl_stream_destroy,
            // SAFETY: the engine lives as long as the process.
            |out| unsafe { (self.functions.dnnl_stream_create)(out, self.engine, ffi::IN_ORDER) },
        )?;
        Ok(Worker {
            stream,
            scratch: Aligned::default(),
        })
    }
}
