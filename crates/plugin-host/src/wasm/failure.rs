//! The reasons why a call of a guest, or its load, gave no result.

use std::time::Duration;

use super::state::GuestState;

/// The reasons why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("all {0} instances are at work")]
    Busy(usize),
    #[error("took longer than {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("needs more memory than max_memory, {0} bytes")]
    Memory(usize, #[source] Reason),
    #[error("failed")]
    Trap(#[source] Reason),
    #[error("was cut off at the end of the request's own time")]
    RequestIsOver,
    #[error("gave an illegal result: {0}")]
    Output(String),
}

impl Failure {
    /// As in the metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Busy(_) => "busy",
            Self::Timeout(_) => "timeout",
            Self::Memory(..) => "memory",
            Self::Trap(_) => "trap",
            Self::Output(_) => "output",
            Self::RequestIsOver => "request_is_over",
        }
    }
}

/// wasmtime's error, with its whole chain and the guest's backtrace.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Reason(pub(super) wasmtime::Error);

/// Raised in a guest when its time is over.
#[derive(Debug, thiserror::Error)]
#[error("the call's time is over")]
pub(super) struct TimeIsOver;

/// The complaint of a plugin about its settings, in the plugin's own words.
#[derive(Debug, thiserror::Error)]
#[error("refuses its settings: {0}")]
pub(super) struct BadSettings(pub(super) String);

/// Says of a load that ran out of time or memory what it was.
pub(super) fn at_load(
    error: wasmtime::Error,
    state: &GuestState,
    init_timeout: Duration,
) -> anyhow::Error {
    if state.is_memory_denied {
        let mib = state.shared.max_memory >> 20;
        return anyhow::Error::from(error).context(format!(
            "needs more than its max_memory of {mib}MiB to begin"
        ));
    }
    if error.is::<TimeIsOver>() {
        return anyhow::anyhow!("lifecycle.init takes longer than {init_timeout:?}");
    }
    state.explain(error).into()
}
