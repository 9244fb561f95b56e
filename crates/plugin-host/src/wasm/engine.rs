//! wasmtime's engine as plugins need it: one for all of them, made when the first is loaded.

mod loading;
pub(super) mod ticker;

use std::time::Duration;

use embedgate_config::MOST_INSTANCES;
use tokio::sync::Semaphore;
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

use self::{
    loading::{LoadingThread, LoadingThreads},
    ticker::Ticker,
};

/// Places in the pool for instances that wait to be used again, and for plugins that are being loaded.
const SPARE: usize = 128;
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

impl GuestEngine {
    /// Makes the engine, and starts its clock and the threads that compile.
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
        self.loading.register()
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
