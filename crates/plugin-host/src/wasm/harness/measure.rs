//! Measures calls of a plugin that many threads make at once.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{Cost, Harness, TICK};

/// No call takes as long as a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// The measurement of calls that many threads make for a while, each for itself.
pub struct LoadMeasurement {
    /// Time of each call, in nanoseconds.
    pub calls: Histogram<u64>,
    /// Calls a second, of all threads together.
    pub per_second: f64,
    /// The delay of timers of the same threads, in nanoseconds. Calls that end before the timers are due let none run.
    pub late: Histogram<u64>,
    /// The most memory that an instance had, in bytes.
    pub peak_memory: usize,
    /// The first verdict that was none, if any.
    pub failure: Option<String>,
}

impl Harness {
    /// Makes one call again and again on so many threads for so long.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn measure<F>(
        &self,
        n_threads: usize,
        time: Duration,
        call: impl Fn() -> F + Sync,
    ) -> anyhow::Result<LoadMeasurement>
    where
        F: Future<Output = (Option<String>, Cost)>,
    {
        let histogram = || Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3);
        let all = Mutex::new(LoadMeasurement {
            calls: histogram()?,
            per_second: 0.0,
            late: histogram()?,
            peak_memory: 0,
            failure: None,
        });
        let started = Instant::now();
        let (to_all, call) = (&all, &call);
        std::thread::scope(|scope| -> anyhow::Result<()> {
            for _ in 0..n_threads {
                let (mut calls, mut late) = (histogram()?, histogram()?);
                std::thread::Builder::new().spawn_scoped(scope, move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    let runtime = runtime.expect("a runtime without threads needs a poll alone");
                    let (mut peak, mut failure) = (0, None);
                    let calling = async {
                        while started.elapsed() < time {
                            let (failed, cost) = call().await;
                            record(&mut calls, cost.time);
                            peak = peak.max(cost.peak_memory);
                            failure = failure.take().or(failed);
                        }
                    };
                    let timers = async {
                        loop {
                            let due = tokio::time::Instant::now() + TICK;
                            tokio::time::sleep_until(due).await;
                            record(&mut late, due.elapsed());
                        }
                    };
                    runtime.block_on(async {
                        tokio::select! {
                            biased;
                            () = calling => {}
                            () = timers => {}
                        }
                    });
                    let mut all = to_all.lock().unwrap_or_else(PoisonError::into_inner);
                    let same = "all have the same precision";
                    all.calls.add(&calls).expect(same);
                    all.late.add(&late).expect(same);
                    all.peak_memory = all.peak_memory.max(peak);
                    all.failure = all.failure.take().or(failure);
                })?;
            }
            Ok(())
        })?;
        let elapsed = started.elapsed().as_secs_f64();
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.per_second = all.calls.len() as f64 / elapsed;
        Ok(all)
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}
