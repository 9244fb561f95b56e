//! The memory of all requests: of each its body, what is made of it, and its answer until the last byte is written. Callers have
//! shares, so that nobody can take all of it.
//!
//! Counts bytes; allocates nothing. `State::allows` decides what a caller may hold.

mod account;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::fast::RandomState;
use slab::Slab;
use tokio::sync::Notify;

pub use self::account::{Account, Held};
use crate::Principal;

/// A caller's share of the whole is one part in so many, and as much is kept for callers who hold nothing yet.
const PARTS: usize = 4;

/// The caller that holds memory: a principal, or where nobody was asked the address that the request came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A principal's tenant and name.
    Named(Option<String>, Arc<str>),
    /// The client's address; none of a socket of this machine.
    Peer(Option<IpAddr>),
}

impl Holder {
    /// The holder of a request.
    #[must_use]
    pub fn of(principal: &Principal, peer: Option<IpAddr>) -> Self {
        match principal.identity() {
            Some(identity) => Self::Named(identity.tenant.clone(), Arc::clone(&identity.subject)),
            None => Self::Peer(peer),
        }
    }
}

/// The memory that all requests together may take.
#[derive(Debug)]
pub struct Memory {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
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
#[derive(Debug, Default)]
struct Usage {
    bytes: usize,
    n_accounts: usize,
    n_answers: usize,
    /// Requests that wait for the memory of their answer, in order of arrival, by their tickets.
    waiting: VecDeque<(u64, Arc<Notify>)>,
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
    pub fn new(max: usize) -> Arc<Self> {
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
    #[must_use]
    pub fn open(self: &Arc<Self>, holder: Holder) -> Account {
        Account::new(self, holder)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // Nothing in here panics between two steps of one change.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Counts one more request of a caller; returns where the caller's usage is kept.
    fn enter(&mut self, holder: &Holder) -> usize {
        let place = self.places.get(holder).copied().unwrap_or_else(|| {
            let place = self.callers.insert(Usage::default());
            self.places.insert(holder.clone(), place);
            place
        });
        self.callers[place].n_accounts += 1;
        place
    }

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

#[cfg(test)]
mod tests;
