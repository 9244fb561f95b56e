//! The requests of one connection that are in service, from their head to the last byte of their answer that hyper has taken.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use axum::body::{Body, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};

/// Counts the requests of one connection that are in service: with HTTP/1, 0 or 1.
#[derive(Clone, Default)]
pub(super) struct Serving(Arc<State>);

#[derive(Default)]
struct State {
    n_requests: AtomicUsize,
    /// Those of them whose answer is on its way.
    n_answers: AtomicUsize,
    /// Bytes of answers that were taken.
    n_taken: AtomicU64,
    /// True while the client has not taken all that was written.
    write_waits: AtomicBool,
    /// True with HTTP/2, where requests have tasks of their own. With HTTP/1 the connection's task runs them, and to wake it costs a poll
    /// of the whole connection each time.
    has_tasks: AtomicBool,
    /// The task of the connection.
    connection: AtomicWaker,
}

impl Serving {
    /// Marks a request as being served, until the guard is dropped.
    pub(super) fn enter(&self) -> ServingGuard {
        self.0.n_requests.fetch_add(1, Ordering::AcqRel);
        ServingGuard(self.clone())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.n_requests.load(Ordering::Acquire) > 0
    }

    /// Returns true where no request is in service, and the client has all that was written.
    pub(super) fn is_quiet(&self) -> bool {
        !self.is_busy() && !self.0.write_waits.load(Ordering::Acquire)
    }

    /// Notes whether the client has not taken all that was written.
    pub(super) fn set_write_waits(&self, waits: bool) {
        self.0.write_waits.store(waits, Ordering::Release);
    }

    /// Returns true while an answer is on its way.
    pub(super) fn answers(&self) -> bool {
        self.0.n_answers.load(Ordering::Acquire) > 0
    }

    /// Bytes of answers that were taken, of all requests so far.
    pub(super) fn n_taken(&self) -> u64 {
        self.0.n_taken.load(Ordering::Acquire)
    }

    /// Says that requests have tasks of their own from now on.
    pub(super) fn set_has_tasks(&self) {
        self.0.has_tasks.store(true, Ordering::Release);
    }

    /// Wakes this task when a request ends, or its answer begins, in another task.
    pub(super) fn register(&self, task: &Waker) {
        if self.0.has_tasks.load(Ordering::Acquire) {
            self.0.connection.register(task);
        }
    }
}

impl State {
    fn wake(&self) {
        if self.has_tasks.load(Ordering::Acquire) {
            self.connection.wake();
        }
    }
}

pub(super) struct ServingGuard(Serving);

impl ServingGuard {
    /// The same body, which is in service until its end.
    pub(super) fn hold(self, body: Body) -> Body {
        let state = &self.0.0;
        state.n_answers.fetch_add(1, Ordering::AcqRel);
        state.wake();
        Body::new(Answer { body, guard: self })
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        let state = &self.0.0;
        state.n_requests.fetch_sub(1, Ordering::AcqRel);
        state.wake();
    }
}

/// The body of an answer.
struct Answer {
    body: Body,
    guard: ServingGuard,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.guard.0.0.n_answers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let taken = &self.guard.0.0.n_taken;
            taken.fetch_add(data.len() as u64, Ordering::AcqRel);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
