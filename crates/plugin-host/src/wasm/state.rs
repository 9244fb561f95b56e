//! The data that a store holds in addition to the guest: its plugin, its remaining budget and its deadline.

mod limiter;

use std::{sync::Arc, time::Instant};

use embedgate_request::Hook;
use wasmtime::bail;

use super::{line::one_line, shared::Shared};

/// Calls of the host in one call of the guest: at 0.1 µs each, 10 ms.
const MOST_HOST_CALLS: u32 = 100_000;
/// Lines and bytes that a call may log.
const MOST_LOG_LINES: u32 = 20;
const MOST_LOG_BYTES: usize = 16 << 10;
/// Bytes of standard output and error that the message of a call that fails has.
const MOST_OUTPUT: usize = 2 << 10;

/// The kind of call that the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `lifecycle.init`, whose state becomes that of every instance.
    Init,
    /// A call that only warms up, for the snapshot: nothing outside may be touched, and nothing of it counts.
    WarmUp,
    /// A request's call.
    Call,
}

/// The data of a store.
pub(super) struct GuestState {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: Phase,
    pub(super) request_id: Option<Arc<str>>,
    /// The time at which the call has to be over.
    pub(super) deadline: Instant,
    pub(super) n_http: u32,
    /// True when the guest asked for a value that differs between calls. If `init` asked, the snapshot is not kept on
    /// disk; if the warm-up asked, its state is not used.
    pub(super) is_impure: bool,
    n_host_calls: u32,
    n_log_lines: u32,
    log_bytes: usize,
    /// The end of its standard output and error.
    output: Vec<u8>,
    memory: usize,
    peak_memory: usize,
    pub(super) is_memory_denied: bool,
    /// The memory that the reading of a snapshot takes in addition.
    pub(super) spare_memory: usize,
    table_elements: usize,
    /// Bytes of memory and elements of a table that were allowed last: taken back where they cannot be had.
    last_growth: (usize, usize),
    hook: Option<Hook>,
}

impl Drop for GuestState {
    /// However a call ends: cut off, too.
    fn drop(&mut self) {
        if let Some(hook) = self.hook {
            self.shared.metrics.hook(hook).peak(self.peak_memory);
        }
    }
}

impl GuestState {
    /// A state with all budgets.
    pub(super) fn new(shared: Arc<Shared>, phase: Phase, deadline: Instant) -> Self {
        Self {
            shared,
            phase,
            request_id: None,
            deadline,
            n_http: 0,
            is_impure: false,
            n_host_calls: 0,
            n_log_lines: 0,
            log_bytes: 0,
            output: Vec::new(),
            memory: 0,
            peak_memory: 0,
            is_memory_denied: false,
            spare_memory: 0,
            table_elements: 0,
            last_growth: (0, 0),
            hook: None,
        }
    }

    /// Gives a used instance the budgets of a new call.
    pub(super) fn begin(&mut self, hook: Hook, request_id: &Arc<str>, deadline: Instant) {
        self.hook = Some(hook);
        self.is_memory_denied = false;
        self.request_id = Some(Arc::clone(request_id));
        self.deadline = deadline;
        self.phase = Phase::Call;
        self.n_http = 0;
        self.n_host_calls = 0;
        self.n_log_lines = 0;
        self.log_bytes = 0;
        self.output.clear();
    }

    /// Keeps the end of what the guest writes to its standard output and error.
    pub(super) fn capture(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        self.host_call()?;
        self.output.extend_from_slice(bytes);
        let over = self.output.len().saturating_sub(MOST_OUTPUT);
        self.output.drain(..over);
        Ok(())
    }

    /// Adds to an error what the guest wrote before it ended, such as an exception's own message.
    pub(super) fn explain(&self, error: wasmtime::Error) -> wasmtime::Error {
        match String::from_utf8_lossy(&self.output).trim() {
            "" => error,
            output => error.context(one_line(output)),
        }
    }

    /// The most that its memories took together, in bytes.
    pub(super) fn peak_memory(&self) -> usize {
        self.peak_memory
    }

    /// Counts a call of the host, and ends the guest that makes too many.
    pub(super) fn host_call(&mut self) -> wasmtime::Result<()> {
        self.n_host_calls += 1;
        if self.n_host_calls > MOST_HOST_CALLS {
            bail!("more than {MOST_HOST_CALLS} calls of the host in one call");
        }
        Ok(())
    }

    /// Counts a call of the host, for imports that reach beyond the instance, and refuses it within `lifecycle.init`.
    pub(super) fn outer_call(&mut self, import: &str) -> wasmtime::Result<()> {
        self.host_call()?;
        if self.phase == Phase::Init {
            bail!("{import} cannot be called from lifecycle.init: its state is that of no request");
        }
        Ok(())
    }

    /// Counts a line of the log, and returns true when a line of `bytes` bytes may still be logged.
    pub(super) fn may_log(&mut self, bytes: usize) -> bool {
        self.n_log_lines += 1;
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        self.n_log_lines <= MOST_LOG_LINES && self.log_bytes <= MOST_LOG_BYTES
    }
}
