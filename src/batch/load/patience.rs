//! The time that a request's inputs may wait.

use std::time::Instant;

use embedgate_request::{Begun, RequestContext};

/// The time that a request's inputs may wait for their turn.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    pub(super) deadline: Instant,
    /// A request that has begun is not held to `max_queue_time`: it waited at its begin.
    pub(super) begun: &'a Begun,
}

impl<'a> Patience<'a> {
    /// The patience of a request.
    pub(crate) fn of(ctx: &'a RequestContext) -> Self {
        Self {
            deadline: ctx.deadline,
            begun: &ctx.begun,
        }
    }

    /// Until a time, and for what has begun: whatever is ahead.
    #[cfg(test)]
    pub(crate) fn until(deadline: Instant, begun: &'a Begun) -> Self {
        Self { deadline, begun }
    }
}
