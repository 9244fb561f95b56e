//! Measures how a backend's time grows with its batch, once, and chooses the batch from that.
//!
//! On a CPU a batch of a few hundred tokens is as fast a token as a large one, and answers sooner; where exactly depends on
//! the model, the library and the machine. The measurement takes a second or a few, so it is kept in a file.

use std::time::{Duration, Instant};

use embedgate_core::{Backend, BackendError, BackendInfo, Outputs, TokenBatch};
use serde::{Deserialize, Serialize};

use super::{
    load::LoadError, load_context::LoadContext, measurement_file::MeasurementFile,
    resolved::ResolvedModel,
};
use crate::batch::cost::{BatchShape, CostModel};

/// No further batch is measured after so long.
const TIME: Duration = Duration::from_millis(1500);
/// A batch that is quick is measured again, up to this often: the least time counts, since noise only adds.
const RUNS: usize = 3;
/// Runs of one batch that are further apart than this say that the machine did other work meanwhile.
const NOISY: f64 = 1.3;
/// A kept measurement is not believed where the backend is so much faster now: the machine did other work then.
const FASTER: f64 = 1.25;
/// The best batch is the smallest that does at least this much of the best tokens a second.
const GOOD_ENOUGH: f64 = 0.97;
/// Smaller batches gain a query little, and what the measurement says of them is within its noise.
const LEAST_BATCH: usize = 128;
/// Batches to measure as (sequences, tokens of each), from quick to slow.
const BATCHES: [(usize, usize); 7] = [
    (1, 16),
    (1, 64),
    (1, 128),
    (2, 128),
    (4, 128),
    (1, 512),
    (8, 128),
];

/// The measurements of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Each batch that was run: sequences, tokens of each, seconds.
    measured: Vec<(usize, usize, f64)>,
    /// True when the machine did other work during the measurement.
    #[serde(skip)]
    is_noisy: bool,
}

impl Calibration {
    /// Runs batches of rising size for a second or a few.
    ///
    /// # Errors
    /// When the backend fails.
    pub(crate) fn measure(backend: &mut dyn Backend) -> Result<Self, BackendError> {
        let longest = backend.info().max_sequence_tokens;
        let vocabulary = backend.info().vocabulary_size;
        let outputs = backend.info().outputs.main();
        let started = Instant::now();
        let (mut measured, mut is_noisy) = (Vec::new(), false);
        for (n, length) in BATCHES.map(|(n, length)| (n, length.min(longest))) {
            if started.elapsed() > TIME {
                break;
            }
            let batch = some_batch(n, length, vocabulary);
            if backend.info().device != "cpu" {
                // A card may compile what a new shape takes.
                backend.embed(&batch, outputs)?;
            }
            let (least, second) = two_least(backend, &batch, outputs)?;
            // Those of a millisecond decide nothing.
            let decides = n * length >= LEAST_BATCH;
            is_noisy |= decides && second.is_some_and(|second| second > least * NOISY);
            measured.push((n, length, least));
        }
        Ok(Self { measured, is_noisy })
    }

    /// Returns true when the backend is much faster now than it was: then the machine did other work during the
    /// measurement. A backend that is slower now says nothing: the machine may do other work now.
    fn is_too_slow(&self, backend: &mut dyn Backend) -> Result<bool, BackendError> {
        // The quickest that says something: this runs at every start.
        let batches = self
            .measured
            .iter()
            .filter(|(n, length, _)| n * length >= LEAST_BATCH);
        let Some((n, length, then)) = batches.min_by_key(|(n, length, _)| n * length) else {
            return Ok(false);
        };
        let info = backend.info();
        let (batch, outputs) = (
            some_batch(*n, *length, info.vocabulary_size),
            info.outputs.main(),
        );
        let (now, _) = two_least(backend, &batch, outputs)?;
        Ok(now * FASTER < *then)
    }

    /// Returns true when the measurements can be calculated with: those read from a file may be wrong.
    #[must_use]
    pub(crate) fn is_usable(&self) -> bool {
        let usable = |(n, length, seconds): &(usize, usize, f64)| {
            (1..1 << 20).contains(n) && (1..1 << 20).contains(length) && *seconds > 0.0
        };
        !self.measured.is_empty() && self.measured.iter().all(usable)
    }

    /// Predicts what a batch takes.
    #[must_use]
    pub(crate) fn cost(&self, info: &BackendInfo) -> CostModel {
        let points: Vec<(BatchShape, f64)> = self
            .measured
            .iter()
            .map(|(n, length, seconds)| (std::iter::repeat_n(*length, *n).collect(), *seconds))
            .collect();
        CostModel::fit(info.layout, &points)
    }

    /// Tokens of the best batch: the smallest that is nearly as fast a token as any.
    #[must_use]
    pub(crate) fn best_batch_tokens(&self) -> usize {
        let enough = self.tokens_per_second() * GOOD_ENOUGH;
        // One long sequence says nothing about batches: attention makes it slower.
        let batches = self.measured.iter().filter(|(_, length, _)| *length <= 128);
        let good = batches.filter(|(n, length, seconds)| (n * length) as f64 / seconds >= enough);
        good.map(|(n, length, _)| n * length)
            .min()
            .unwrap_or(LEAST_BATCH)
            .max(LEAST_BATCH)
    }

    /// Tokens a second in the best of the measured batches.
    #[must_use]
    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.measured
            .iter()
            .filter(|(_, length, _)| *length <= 128)
            .map(|(n, length, seconds)| (n * length) as f64 / seconds)
            .fold(1.0, f64::max)
    }
}

/// The least time of a batch in seconds, since noise only adds; and the second least, of a batch that is quick enough to be run
/// again.
fn two_least(
    backend: &mut dyn Backend,
    batch: &TokenBatch,
    outputs: Outputs,
) -> Result<(f64, Option<f64>), BackendError> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        backend.embed(batch, outputs)?;
        times.push(started.elapsed().as_secs_f64());
        // Two at least, unless they take a good part of the time for all.
        let is_slow = started.elapsed() * 10 > TIME && times.len() > 1;
        if is_slow || started.elapsed() * 3 > TIME {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[0], times.get(1).copied()))
}

/// Sequences of ordinary token ids: which ones makes no difference to the time.
pub(super) fn some_batch(n: usize, length: usize, vocabulary: usize) -> TokenBatch {
    let id = |i: usize| u32::try_from(i * 7919 % vocabulary).unwrap_or(0);
    let ids: Vec<u32> = (1..=n * length).map(id).collect();
    ids.chunks(length).collect()
}

/// Returns the growth of the backend's time with its batch, measured before or now.
pub(super) fn calibration(
    model: &ResolvedModel,
    context: &LoadContext,
    fingerprint: &blake3::Hash,
    backend: &mut dyn Backend,
) -> Result<Calibration, LoadError> {
    let threads = model.threads as u64;
    let replicas = model.replicas.get() as u64;
    let of = [
        fingerprint.as_bytes().as_slice(),
        &threads.to_le_bytes(),
        &replicas.to_le_bytes(),
    ];
    let file = MeasurementFile::new(context.state_folder.as_deref(), "calibration", &of);
    let kept: Option<Calibration> = match context.recalibrate {
        true => None,
        false => file.read(),
    };
    if let Some(kept) = kept.filter(Calibration::is_usable)
        && !kept.is_too_slow(backend).map_err(LoadError::WarmUp)?
    {
        return Ok(kept);
    }
    let measured = Calibration::measure(backend).map_err(LoadError::WarmUp)?;
    if measured.is_noisy {
        tracing::info!(
            "the machine did other work while a model was measured: it is measured again at the next start"
        );
    } else {
        file.write(&measured);
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use embedgate_config::{Config, Environment};

    use super::*;

    fn measured(points: &[(usize, usize, f64)]) -> Calibration {
        Calibration {
            measured: points.to_vec(),
            is_noisy: false,
        }
    }

    #[test]
    fn what_was_measured_on_a_busy_machine_is_measured_again_when_it_is_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let mut context = LoadContext::new(&Config::default(), &Environment::default());
        context.state_folder = Some(folder.path().to_owned());
        let model = ResolvedModel::of_nothing();
        let of = blake3::hash(b"model");
        let (mut backend, _) = embedgate_mock::MockBackend::new(8);
        let kept = |context: &LoadContext, backend: &mut dyn Backend| {
            calibration(&model, context, &of, backend).unwrap()
        };
        let parts = [
            of.as_bytes().as_slice(),
            &(model.threads as u64).to_le_bytes(),
            &(model.replicas.get() as u64).to_le_bytes(),
        ];
        let file = MeasurementFile::new(context.state_folder.as_deref(), "calibration", &parts);
        // Slower than the backend by far.
        let slow = measured(&[(1, 64, 100.0), (1, 128, 200.0)]);
        file.write(&slow);
        let now = kept(&context, &mut backend);
        assert!(now.tokens_per_second() > 2.0, "{now:?}");
        // Faster than the backend: the machine is busy now.
        let fast = measured(&[(1, 64, 1e-12), (1, 128, 2e-12)]);
        file.write(&fast);
        assert_eq!(kept(&context, &mut backend), fast);
        context.recalibrate = true;
        assert_ne!(kept(&context, &mut backend), fast);
    }

    #[test]
    fn the_best_batch_is_the_smallest_that_is_nearly_as_fast_as_any() {
        let points = [
            (1, 64, 0.10),
            (1, 128, 0.128),
            (2, 128, 0.25),
            (4, 128, 0.51),
        ];
        let calibration = measured(&points);
        assert_eq!(calibration.best_batch_tokens(), 128);
        assert!((calibration.tokens_per_second() - 1024.0).abs() < 1e-9);
        let quick = measured(&[(1, 16, 0.01), (1, 64, 0.04), (1, 128, 0.08)]);
        assert_eq!(quick.best_batch_tokens(), 128);
        let rising = measured(&[(1, 64, 0.10), (1, 128, 0.11), (2, 128, 0.12)]);
        assert_eq!(rising.best_batch_tokens(), 256);
    }

    #[test]
    fn a_measurement_of_nothing_is_not_usable() {
        assert!(measured(&[(1, 64, 0.1)]).is_usable());
        for points in [&[][..], &[(0, 1, 1.0)], &[(1, 0, 1.0)], &[(1, 64, 0.0)]] {
            assert!(!measured(points).is_usable(), "{points:?}");
        }
    }

    #[test]
    fn a_backend_is_measured() {
        let (mut backend, control) = embedgate_mock::MockBackend::new(8);
        let calibration = Calibration::measure(&mut backend).unwrap();
        assert!(calibration.measured.len() >= 3 && !control.batches().is_empty());
        assert!(
            calibration
                .cost(backend.info())
                .seconds(BatchShape::default().with(100))
                > 0.0
        );
    }
}
