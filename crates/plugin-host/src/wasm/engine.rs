//! wasmtime's engine as plugins need it: one for all of them, made when the first is loaded.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use embedgate_config::MOST_INSTANCES;
use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

/// Places in the pool for instances that wait to be used again, and for plugins that are being loaded.
const SPARE: usize = 128;
/// The interval at which a guest that computes is checked: it yields to other requests, or ends.
pub const TICK: Duration = Duration::from_millis(1);
/// The clock stops after so many ticks without a call, so that an idle gateway does not wake a thousand times a second.
const IDLE_TICKS: u32 = 200;
/// Room for a linear memory, and what `max_memory` may be at most. Guests check their bounds in software beyond it, which
/// costs little; the usual 4 GiB would ask the system for a TiB of addresses.
const MEMORY_ROOM: usize = 256 << 20;
/// Memory of an instance's place that the next instance finds mapped: more would be touched at each reset.
const KEPT_MEMORY: usize = 1 << 20;
/// The version of Linux that can say which pages were written.
const PAGEMAP_SCAN_SINCE: (u32, u32) = (6, 7);
/// The size of [`KEPT_MEMORY`] where the kernel cannot tell which pages were written, so that all of it is zeroed each
/// time.
const KEPT_MEMORY_BLIND: usize = 256 << 10;

/// The engine, its clock, and the threads that compile.
pub(super) struct GuestEngine {
    pub(super) engine: Engine,
    pub(super) ticker: Ticker,
    /// Calls that may be under way at once.
    pub(super) places: Semaphore,
    compilers: rayon::ThreadPool,
    loading: LoadingThreads,
}

/// The threads that load and compile, by the system's numbers.
#[derive(Clone, Default)]
struct LoadingThreads(Arc<Mutex<Vec<u32>>>);

/// A thread among those that load, until it is dropped.
pub(super) struct LoadingThread<'e> {
    all: &'e LoadingThreads,
    id: u32,
}

impl Drop for LoadingThread<'_> {
    fn drop(&mut self) {
        // The system gives the number to another thread.
        self.all.lock().retain(|id| *id != self.id);
    }
}

impl LoadingThreads {
    fn add_this(&self) -> u32 {
        let id = this_thread();
        self.lock().push(id);
        id
    }

    /// The time that they had on a processor; none where the system does not say.
    fn cpu_time(&self) -> Option<Duration> {
        let of = |id: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
            stat.split(' ').next()?.parse().ok()
        };
        let times: Vec<u64> = self.lock().iter().filter_map(of).collect();
        (!times.is_empty()).then(|| Duration::from_nanos(times.iter().sum()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuestEngine {
    pub(super) fn new() -> anyhow::Result<Self> {
        let engine = Engine::new(&config())?;
        let ticker = Ticker::start(&engine)?;
        // Compiling can take seconds of every core: requests go first.
        let loading = LoadingThreads::default();
        let compiling = loading.clone();
        let compilers = rayon::ThreadPoolBuilder::new()
            .thread_name(|i| format!("plugin-compiler-{i}"))
            .start_handler(move |_| {
                compiling.add_this();
                // Where it cannot be had, compiling is just not the last in line.
                rustix::process::nice(10).ok();
            })
            .build()?;
        Ok(Self {
            engine,
            ticker,
            places: Semaphore::new(MOST_INSTANCES),
            compilers,
            loading,
        })
    }

    /// Counts the calling thread among those that load.
    pub(super) fn register_thread(&self) -> LoadingThread<'_> {
        LoadingThread {
            all: &self.loading,
            id: self.loading.add_this(),
        }
    }

    /// The time on processors of all threads that load.
    pub(super) fn loading_time(&self) -> Option<Duration> {
        self.loading.cpu_time()
    }

    /// Runs work that wasmtime spreads over threads.
    pub(super) fn compile<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.compilers.install(work)
    }
}

#[cfg(target_os = "linux")]
fn this_thread() -> u32 {
    let id = rustix::thread::gettid().as_raw_nonzero().get();
    id.unsigned_abs()
}

/// Elsewhere the system is not asked.
#[cfg(not(target_os = "linux"))]
fn this_thread() -> u32 {
    0
}

fn config() -> Config {
    let places = u32::try_from(MOST_INSTANCES + SPARE).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    // A component is made of several core modules, of which few have a memory.
    pool.total_component_instances(places)
        .total_core_instances(4 * places)
        .total_memories(2 * places)
        .total_tables(4 * places)
        .total_stacks(places)
        .max_unused_warm_slots(64)
        .max_memory_size(MEMORY_ROOM)
        .max_memories_per_component(8)
        .max_tables_per_component(16)
        .table_elements(20_000)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(kept_memory())
        .table_keep_resident(64 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(pool)
        .memory_reservation(MEMORY_ROOM as u64)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(256 << 10)
        .async_stack_size(1 << 20);
    config
}

fn kept_memory() -> usize {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if cfg!(target_os = "linux") && version >= PAGEMAP_SCAN_SINCE {
        KEPT_MEMORY
    } else {
        KEPT_MEMORY_BLIND
    }
}

/// The clock of guests: advances the engine's epoch once a [`TICK`] while calls are under way.
#[derive(Clone)]
pub(super) struct Ticker(Arc<TickerState>);

struct TickerState {
    n_calls: AtomicUsize,
    is_parked: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Ticker {
    fn start(engine: &Engine) -> std::io::Result<Self> {
        let ticker = Self(Arc::new(TickerState {
            n_calls: AtomicUsize::new(0),
            is_parked: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
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
    pub(super) fn call(&self) -> Ticking<'_> {
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
pub(super) struct Ticking<'a>(&'a TickerState);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.n_calls.fetch_sub(1, Ordering::SeqCst);
    }
}
