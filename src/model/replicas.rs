//! Finds out, once, how many replicas a model is to have on this machine.
//!
//! Replicas share the processor, so that one with half of the threads takes longer for a batch; together they may do more,
//! where a batch is too small for so many threads. A caller that is alone has one replica's threads only.

use std::{
    num::NonZeroUsize,
    panic, thread,
    time::{Duration, Instant},
};

use embedgate_config::ReplicaCount;
use embedgate_core::{Backend, BackendError};
use serde::{Deserialize, Serialize};

use super::{
    calibrate::{Calibration, some_batch},
    load::{self, LoadError, Plan},
    loader::Loader,
    measurement_file::MeasurementFile,
    memory,
    resolved::ResolvedModel,
};

/// Fewer replicas are taken if they do at least this much of the most tokens a second: what more of them would gain has to be
/// worth the time of a caller that is alone.
const GOOD_ENOUGH: f64 = 0.8;
/// The least time of so many counts, since noise only adds.
const RUNS: usize = 3;
/// Batches that a replica does in a run.
const BATCHES: usize = 2;
/// Larger batches are no faster a token, and the start waits for them.
const MOST_TOKENS: usize = 1024;
/// Tokens of each sequence: batches of longer ones are the same work.
const SEQUENCE_TOKENS: usize = 128;

/// The measured speed of a number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    replicas: NonZeroUsize,
    /// Threads of each replica.
    threads: usize,
    /// Tokens a second of all replicas together.
    tokens_per_second: f64,
}

impl Loader<'_> {
    /// The model with the number of replicas counted, where its configuration leaves that open: the number that was found before,
    /// or is found now.
    ///
    /// # Errors
    /// [`LoadError`] when the model cannot be loaded or run.
    pub(super) fn count_replicas(&self, model: &ResolvedModel) -> Result<ResolvedModel, LoadError> {
        // A card is not divided among threads.
        if self.config.replicas != ReplicaCount::Auto || !model.backend.is_on_processor() {
            return Ok(model.clone());
        }
        let candidates = self.candidates(model);
        if candidates.len() == 1 {
            return Ok(model.clone());
        }
        let Measured {
            replicas,
            threads,
            tokens_per_second,
        } = best(&self.measured(&candidates)?);
        let name = self.name;
        tracing::info!(
            model.name = name,
            replicas,
            threads,
            "model {name} gets replicas x threads = {replicas} x {threads}, which do about {tokens_per_second:.0} tokens/s together"
        );
        Ok(model.with_replicas(replicas, self.context))
    }

    /// One replica, 2, 4 and so on, as long as there are threads for them, and memory even if they share nothing.
    fn candidates(&self, model: &ResolvedModel) -> Vec<ResolvedModel> {
        let fits = |model: &ResolvedModel| {
            let threads = model.replicas.get() * model.threads;
            threads <= self.context.default_threads && memory::fits(model, self.plan)
        };
        let two = NonZeroUsize::MIN.saturating_add(1);
        let counts = std::iter::successors(Some(two), |n| n.checked_mul(two));
        let more = counts.map(|n| model.with_replicas(n, self.context));
        std::iter::once(model.clone())
            .chain(more.take_while(fits))
            .collect()
    }

    /// Returns the measurements of an earlier start, or measures now. There is at least one candidate.
    fn measured(&self, candidates: &[ResolvedModel]) -> Result<Vec<Measured>, LoadError> {
        let Plan {
            folder, max_tokens, ..
        } = self.plan;
        let ResolvedModel {
            backend,
            stated_threads,
            max_batch_tokens,
            ..
        } = &candidates[0];
        let what_runs = format!(
            "{:?} {backend:?} {stated_threads:?} {max_tokens} {max_batch_tokens:?}",
            folder.encoder
        );
        let threads = self.context.default_threads as u64;
        let of = [what_runs.as_bytes(), &threads.to_le_bytes()];
        let file = MeasurementFile::new(self.context.state_folder.as_deref(), "replicas", &of);
        let kept: Option<Vec<Measured>> = match self.context.recalibrate {
            true => None,
            false => file.read(),
        };
        if let Some(kept) = kept.filter(|kept| are_of(kept, candidates)) {
            return Ok(kept);
        }
        let mut measured: Vec<Measured> = Vec::new();
        for model in candidates {
            match self.measure(model) {
                Ok(one) => {
                    let before = measured.last().map_or(0.0, |last| last.tokens_per_second);
                    measured.push(one);
                    // More of what is slower already is slower still.
                    if one.tokens_per_second < before * GOOD_ENOUGH {
                        break;
                    }
                }
                Err(error) if measured.is_empty() => return Err(error),
                Err(error) => {
                    let (name, n) = (self.name, model.replicas);
                    tracing::warn!(model.name = name, error = %error, "model {name} cannot have {n} replicas: {error}");
                    return Ok(measured);
                }
            }
        }
        file.write(&measured);
        Ok(measured)
    }

    fn measure(&self, model: &ResolvedModel) -> Result<Measured, LoadError> {
        let (name, replicas) = (self.name, model.replicas);
        tracing::info!(
            model.name = name,
            replicas,
            "measuring model {name} with replicas = {replicas}, once"
        );
        let groups = load::open_replicas(self, model)?;
        let mut backends: Vec<_> = groups
            .into_iter()
            .flat_map(|group| group.backends)
            .collect();
        let best = Calibration::measure(backends[0].as_mut())
            .map(|calibration| calibration.best_batch_tokens());
        let tokens = best.map_err(LoadError::WarmUp)?;
        let tokens = model.max_batch_tokens.unwrap_or(tokens).min(MOST_TOKENS);
        let rate = tokens_per_second(&mut backends, tokens);
        Ok(Measured {
            replicas,
            threads: model.threads,
            tokens_per_second: rate.map_err(LoadError::WarmUp)?,
        })
    }
}

/// Returns true when these are measurements of these candidates: a file may hold anything.
fn are_of(kept: &[Measured], candidates: &[ResolvedModel]) -> bool {
    let is_one = |(kept, model): (&Measured, &ResolvedModel)| {
        kept.replicas == model.replicas
            && kept.threads == model.threads
            && kept.tokens_per_second.is_finite()
            && kept.tokens_per_second > 0.0
    };
    !kept.is_empty() && kept.len() <= candidates.len() && kept.iter().zip(candidates).all(is_one)
}

/// The fewest replicas that are nearly as fast as any. There is at least one measurement.
fn best(measured: &[Measured]) -> Measured {
    let rates = measured.iter().map(|one| one.tokens_per_second);
    let enough = rates.fold(0.0, f64::max) * GOOD_ENOUGH;
    let mut good = measured
        .iter()
        .filter(|one| one.tokens_per_second >= enough);
    *good.next().unwrap_or(&measured[0])
}

/// Measures the tokens a second of all backends at work at once, in batches of about `tokens` tokens.
fn tokens_per_second(
    backends: &mut [Box<dyn Backend>],
    tokens: usize,
) -> Result<f64, BackendError> {
    let info = backends[0].info();
    let (length, outputs) = (
        SEQUENCE_TOKENS.min(info.max_sequence_tokens),
        info.outputs.main(),
    );
    let n = (tokens / length).max(1);
    let batch = some_batch(n, length, info.vocabulary_size);
    let run = &|backend: &mut Box<dyn Backend>| {
        (0..BATCHES).try_for_each(|_| backend.embed(&batch, outputs).map(|_| ()))
    };
    let all = backends.len() * BATCHES * n * length;
    let mut least = Duration::MAX;
    // One run more, for products that are compiled and memory that is taken in the first.
    for _ in 0..=RUNS {
        let started = Instant::now();
        thread::scope(|scope| {
            let running: Vec<_> = backends
                .iter_mut()
                .map(|backend| scope.spawn(move || run(backend)))
                .collect();
            running.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| panic::resume_unwind(panic))
            })
        })?;
        least = least.min(started.elapsed());
    }
    Ok(all as f64 / least.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_replicas_are_taken_only_where_they_do_clearly_more() {
        for (rates, expected) in [
            ([100.0, 110.0, 124.0], 1),
            ([100.0, 130.0, 150.0], 2),
            ([100.0, 90.0, 200.0], 4),
        ] {
            let one = |(i, rate): (usize, f64)| Measured {
                replicas: NonZeroUsize::new(1 << i).unwrap(),
                threads: 4 >> i,
                tokens_per_second: rate,
            };
            let measured: Vec<_> = rates.into_iter().enumerate().map(one).collect();
            assert_eq!(best(&measured).replicas.get(), expected, "{rates:?}");
            assert_eq!(best(&measured[..1]).replicas.get(), 1);
        }
    }

    #[test]
    fn the_backends_are_measured_at_work_together() {
        let (backends, controls): (Vec<_>, Vec<_>) =
            (0..3).map(|_| embedgate_mock::MockBackend::new(8)).unzip();
        let mut backends: Vec<Box<dyn Backend>> =
            backends.into_iter().map(|b| Box::new(b) as _).collect();
        assert!(tokens_per_second(&mut backends, 256).unwrap() > 0.0);
        for control in controls {
            assert_eq!(control.batches().len(), BATCHES * (RUNS + 1));
        }
    }
}
