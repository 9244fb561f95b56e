//! The memory of one request, and the line of requests that wait for the memory of their answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{Holder, Memory, PARTS, Wish};
use crate::{Error, ErrorKind};

/// The time within which requests in flight give some memory back, when all of it is taken.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory of one request. Its parts may be given back one by one.
#[derive(Clone, Debug)]
pub struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Arc<Memory>,
    holder: Holder,
    /// The caller's, which is there as long as one of its accounts is.
    place: usize,
    held: AtomicUsize,
}

/// Some bytes of an account, until it is dropped.
#[derive(Debug)]
pub struct Held {
    account: Account,
    bytes: usize,
    is_answer: bool,
}

impl Account {
    /// The account of work that shares memory with no client's.
    #[must_use]
    pub fn unlimited() -> Self {
        Memory::new(usize::MAX).open(Holder::Peer(None))
    }

    /// Opens the account of a request in the memory of all.
    pub(super) fn new(memory: &Arc<Memory>, holder: Holder) -> Self {
        let place = memory.change(|state| state.enter(&holder));
        Self(Arc::new(Inner {
            memory: Arc::clone(memory),
            holder,
            place,
            held: AtomicUsize::new(0),
        }))
    }

    /// Takes some bytes, or none.
    ///
    /// # Errors
    /// `Overloaded` when there is not so much left for this caller, `PayloadTooLarge` when there never is for one request.
    pub fn take(&self, bytes: usize) -> Result<Held, Error> {
        if bytes == 0 {
            return Ok(self.nothing());
        }
        self.fits(bytes)?;
        self.try_take(bytes, false, None).ok_or_else(overloaded)
    }

    /// Takes the bytes of an answer, and waits its turn for them while other answers are still to give some back.
    ///
    /// # Errors
    /// As [`Account::take`]; it ends at the deadline.
    pub async fn take_for_answer(&self, bytes: usize, deadline: Instant) -> Result<Held, Error> {
        self.fits(bytes)?;
        if let Some(held) = self.try_take(bytes, true, None) {
            return Ok(held);
        }
        let turn = Turn::new(self);
        loop {
            if let Some(held) = self.try_take(bytes, true, Some(turn.ticket)) {
                return Ok(held);
            }
            let n_answers = self.0.memory.change(|state| state.n_answers);
            if n_answers == 0 {
                return Err(overloaded());
            }
            // A call that comes before this wait is kept.
            let called = turn.called.notified();
            let waited = tokio::time::timeout_at(deadline.into(), called).await;
            waited.map_err(|_| overloaded())?;
        }
    }

    /// No byte, which need not be counted.
    fn nothing(&self) -> Held {
        Held {
            account: self.clone(),
            bytes: 0,
            is_answer: false,
        }
    }

    /// Refuses more than there ever is for one request.
    fn fits(&self, bytes: usize) -> Result<(), Error> {
        let max = self.0.memory.max;
        let all = self.held().saturating_add(bytes);
        if all <= max - max / PARTS {
            return Ok(());
        }
        let message = "this request and its answer take more than three quarters of server.max_bodies: split the request";
        Err(Error::new(ErrorKind::PayloadTooLarge, message))
    }

    fn try_take(&self, bytes: usize, is_answer: bool, ticket: Option<u64>) -> Option<Held> {
        let inner = &*self.0;
        inner.memory.change(|state| {
            let usage = &state.callers[inner.place];
            let first = usage.waiting.front().map(|(ticket, _)| *ticket);
            // Answers come in the order of those who wait.
            if is_answer && first != ticket {
                return None;
            }
            let wish = Wish {
                bytes,
                own: inner.held.load(Ordering::Relaxed),
                is_first: is_answer,
            };
            if !state.allows(inner.memory.max, usage, &wish) {
                return None;
            }
            state.free -= bytes;
            state.n_answers += usize::from(is_answer);
            let usage = &mut state.callers[inner.place];
            usage.bytes += bytes;
            usage.n_answers += usize::from(is_answer);
            inner.held.fetch_add(bytes, Ordering::Relaxed);
            Some(Held {
                account: self.clone(),
                bytes,
                is_answer,
            })
        })
    }

    /// Bytes that it holds.
    fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Takes in more of the same account.
    pub fn merge(&mut self, mut more: Self) {
        self.bytes += std::mem::take(&mut more.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 && !self.is_answer {
            return;
        }
        let inner = &*self.account.0;
        inner.memory.change(|state| {
            state.free += self.bytes;
            state.n_answers -= usize::from(self.is_answer);
            let usage = &mut state.callers[inner.place];
            usage.bytes -= self.bytes;
            usage.n_answers -= usize::from(self.is_answer);
            inner.held.fetch_sub(self.bytes, Ordering::Relaxed);
            state.call_first();
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.memory.change(|state| {
            let usage = &mut state.callers[self.place];
            usage.n_accounts -= 1;
            if usage.n_accounts == 0 {
                state.callers.remove(self.place);
                state.places.remove(&self.holder);
            }
        });
    }
}

/// A place in the line of a caller's requests, until it is dropped.
struct Turn<'a> {
    account: &'a Account,
    ticket: u64,
    /// Told when it is the first, and some memory was given back.
    called: Arc<Notify>,
}

impl<'a> Turn<'a> {
    fn new(account: &'a Account) -> Self {
        let inner = &*account.0;
        let called = Arc::<Notify>::default();
        let ticket = inner.memory.change(|state| {
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.n_waiting += 1;
            let usage = &mut state.callers[inner.place];
            usage.waiting.push_back((ticket, Arc::clone(&called)));
            ticket
        });
        Self {
            account,
            ticket,
            called,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let inner = &*self.account.0;
        inner.memory.change(|state| {
            state.n_waiting -= 1;
            let waiting = &mut state.callers[inner.place].waiting;
            // Most leave from the front.
            let place = waiting
                .iter()
                .position(|(ticket, _)| *ticket == self.ticket);
            place.and_then(|place| waiting.remove(place));
            state.call_first();
        });
    }
}

fn overloaded() -> Error {
    Error {
        retry_after: Some(RETRY_AFTER),
        ..Error::new(
            ErrorKind::Overloaded,
            "the requests and answers in memory take the caller's share of server.max_bodies, or all of it: try again later",
        )
    }
}
