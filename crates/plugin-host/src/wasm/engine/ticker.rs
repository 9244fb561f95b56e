//! The clock by which guests yield and end.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use wasmtime::Engine;

/// The interval at which a guest that computes is checked: it yields to other requests, or ends.
pub const TICK: Duration = Duration::from_millis(1);
/// The clock stops after so many ticks without a call, so that an idle gateway does not wake a thousand times a second.
const IDLE_TICKS: u32 = 200;

/// The clock of guests: advances the engine's epoch once a [`TICK`] while calls are under way.
#[derive(Clone)]
pub(in crate::wasm) struct Ticker(Arc<TickerState>);

struct TickerState {
    n_calls: AtomicUsize,
    is_parked: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// Starts the clock of an engine.
    pub(super) fn start(engine: &Engine) -> io::Result<Self> {
        let ticker = Self(Arc::new(TickerState {
            n_calls: AtomicUsize::new(0),
            is_parked: AtomicBool::new(false),
            thread: OnceLock::new(),
        }));
        let (weak, state) = (engine.weak(), Arc::downgrade(&ticker.0));
        let handle = thread::Builder::new()
            .name("plugin-clock".into())
            .spawn(move || {
                let mut idle = 0;
                let mut next = Instant::now();
                // Gone with the engine and the last call.
                while let (Some(engine), Some(state)) = (weak.upgrade(), state.upgrade()) {
                    engine.increment_epoch();
                    idle = match state.n_calls.load(Ordering::SeqCst) {
                        0 => idle + 1,
                        _ => 0,
                    };
                    if idle > IDLE_TICKS {
                        state.is_parked.store(true, Ordering::SeqCst);
                        // A call that began in between has seen the flag, or is seen here.
                        if state.n_calls.load(Ordering::SeqCst) == 0 {
                            drop((engine, state));
                            thread::park_timeout(Duration::from_secs(1));
                        }
                        idle = 0;
                        next = Instant::now();
                        continue;
                    }
                    // On a schedule: sleeping a tick after each tick would drift.
                    next += TICK;
                    match next.checked_duration_since(Instant::now()) {
                        Some(wait) => thread::sleep(wait),
                        None => next = Instant::now(),
                    }
                }
            })?;
        ticker
            .0
            .thread
            .set(handle.thread().clone())
            .expect("set once");
        Ok(ticker)
    }

    /// Keeps the clock going until the result is dropped.
    pub(in crate::wasm) fn call(&self) -> Ticking<'_> {
        self.0.n_calls.fetch_add(1, Ordering::SeqCst);
        if self.0.is_parked.load(Ordering::SeqCst)
            && self.0.is_parked.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
        Ticking(&self.0)
    }
}

/// A call under way.
pub(in crate::wasm) struct Ticking<'a>(&'a TickerState);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.n_calls.fetch_sub(1, Ordering::SeqCst);
    }
}
