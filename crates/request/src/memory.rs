//! The memory of all requests: of each its body, what is made of it, and its answer until the last byte is written. Callers have
//! shares, so that nobody can take all of it.
//!
//! Counts bytes; allocates nothing. What a caller may hold, [`State::allows`] says.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_request::{Error, ErrorKind, Principal};
use foldhash::fast::RandomState;
use slab::Slab;
use tokio::sync::Notify;

/// A caller's share of the whole is one part in so many, and as much is kept for callers who hold nothing yet.
const PARTS: usize = 4;
/// The time within which requests in flight give some memory back, when all of it is taken.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The caller that holds memory: a principal, or where nobody was asked the address that the request came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A principal's tenant and name.
    Named(Option<String>, Arc<str>),
    /// The other end of the connection; none in tests without one.
    Peer(Option<IpAddr>),
}

impl Holder {
    /// The holder of a request.
    pub(crate) fn of(principal: &Principal, peer: Option<IpAddr>) -> Self {
        match principal.identity() {
            Some(identity) => Self::Named(identity.tenant.clone(), Arc::clone(&identity.subject)),
            None => Self::Peer(peer),
        }
    }
}

/// The memory that all requests together may take.
pub(crate) struct Memory {
    max: usize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Answers that are being made or written: they will give memory back.
    n_answers: usize,
    /// The callers with requests in flight, and where their usage is kept.
    places: HashMap<Holder, usize, RandomState>,
    callers: Slab<Usage>,
    /// Requests that wait, of all callers.
    n_waiting: usize,
    next_ticket: u64,
}

/// The memory of one caller.
#[derive(Default)]
struct Usage {
    bytes: usize,
    n_accounts: usize,
    n_answers: usize,
    /// Requests that wait for the memory of their answer, in order of arrival, by their tickets.
    waiting: VecDeque<(u64, Arc<Notify>)>,
}

/// The memory of one request. Its parts may be given back one by one.
#[derive(Clone)]
pub(crate) struct Account(Arc<Inner>);

struct Inner {
    memory: Arc<Memory>,
    holder: Holder,
    /// The caller's, which is there as long as one of its accounts is.
    place: usize,
    held: AtomicUsize,
}

/// Some bytes of an account, until it is dropped.
pub(crate) struct Held {
    account: Account,
    bytes: usize,
    is_answer: bool,
}

/// A request for more memory.
struct Wish {
    bytes: usize,
    /// Bytes that the request holds already.
    own: usize,
    /// True where it is for an answer, and the first in its caller's line.
    is_first: bool,
}

impl Memory {
    /// Makes so many bytes available.
    #[must_use]
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let state = State {
            free: max,
            n_answers: 0,
            places: HashMap::default(),
            callers: Slab::new(),
            n_waiting: 0,
            next_ticket: 0,
        };
        Arc::new(Self {
            max,
            state: Mutex::new(state),
        })
    }

    /// Opens the account of a request.
    pub(crate) fn open(self: &Arc<Self>, holder: Holder) -> Account {
        let place = self.change(|state| {
            let place = state.places.get(&holder).copied().unwrap_or_else(|| {
                let place = state.callers.insert(Usage::default());
                state.places.insert(holder.clone(), place);
                place
            });
            state.callers[place].n_accounts += 1;
            place
        });
        Account(Arc::new(Inner {
            memory: Arc::clone(self),
            holder,
            place,
            held: AtomicUsize::new(0),
        }))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Nothing in here panics between two steps of one change.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Decides whether a caller may have more. A request that is its caller's only one may take all that is free up to the share, and
    /// beyond it what leaves a part for others; other requests stay within the share, and leave that part.
    fn allows(&self, max: usize, usage: &Usage, wish: &Wish) -> bool {
        let part = max / PARTS;
        let Usage {
            bytes, n_answers, ..
        } = *usage;
        let leaves_a_part = self.free >= wish.bytes.saturating_add(part);
        let (alone, own) = (bytes == wish.own, wish.own + wish.bytes);
        if alone && own <= part {
            return wish.bytes <= self.free;
        }
        // What the caller's other requests hold is theirs until an answer is made: without one, the first in line goes on.
        let may_exceed = alone || (wish.is_first && n_answers == 0);
        leaves_a_part && (may_exceed || bytes + wish.bytes <= part)
    }

    /// Tells the first in each caller's line to look again.
    fn call_first(&self) {
        if self.n_waiting > 0 {
            let firsts = self
                .callers
                .iter()
                .filter_map(|(_, usage)| usage.waiting.front());
            firsts.for_each(|(_, called)| called.notify_one());
        }
    }
}

impl Account {
    /// Takes some bytes, or none.
    ///
    /// # Errors
    /// `Overloaded` when there is not so much left for this caller, `PayloadTooLarge` when there never is for one request.
    pub(crate) fn take(&self, bytes: usize) -> Result<Held, Error> {
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
    pub(crate) async fn take_for_answer(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Held, Error> {
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
    pub(crate) fn merge(&mut self, mut more: Self) {
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

#[cfg(test)]
mod tests;
