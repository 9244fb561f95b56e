//! Measures how a backend's time grows with its batch, once, and chooses the batch from that.
//!
//! On a CPU a batch of a few hundred tokens is as fast a token as a large one, and answers sooner; where exactly depends on
//! the model, the library and the machine. The measurement takes a second or a few, so it is kept in a file.

use std::time::{Duration, Instant};

use embedgate_config::ModelConfig;
use embedgate_core::{Backend, BackendError, BackendInfo, TokenBatch};
use serde::{Deserialize, Serialize};

use super::{kept::KeptFile, load::LoadError, surroundings::Surroundings};
use crate::batch::cost::{CostModel, Shape};

/// No further batch is measured after so long.
const TIME: Duration = Duration::from_millis(1500);
/// A batch that is quick is measured again, up to this often: the least time counts, since noise only adds.
const RUNS: usize = 3;
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

/// What was found out about a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Each batch that was run: sequences, tokens of each, seconds.
    measured: Vec<(usize, usize, f64)>,
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
        let mut measured = Vec::new();
        for (n, length) in BATCHES.map(|(n, length)| (n, length.min(longest))) {
            if started.elapsed() > TIME {
                break;
            }
            let batch = some_batch(n, length, vocabulary);
            let mut least = f64::INFINITY;
            for _ in 0..RUNS {
                let run_started = Instant::now();
                backend.embed(&batch, outputs)?;
                least = least.min(run_started.elapsed().as_secs_f64());
                if run_started.elapsed() * 10 > TIME {
                    break;
                }
            }
            measured.push((n, length, least));
        }
        Ok(Self { measured })
    }

    /// Whether it can be calculated with: what was read from a file need not be.
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
        let points: Vec<(Shape, f64)> = self
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

/// Sequences of ordinary token ids: which ones makes no difference to the time.
pub(super) fn some_batch(n: usize, length: usize, vocabulary: usize) -> TokenBatch {
    let id = |i: usize| u32::try_from(i * 7919 % vocabulary).unwrap_or(0);
    let ids: Vec<u32> = (1..=n * length).map(id).collect();
    ids.chunks(length).collect()
}

/// How the backend's time grows with its batch: measured before, or now.
pub(super) fn calibration(
    config: &ModelConfig,
    surroundings: &Surroundings,
    fingerprint: &blake3::Hash,
    backend: &mut dyn Backend,
) -> Result<Calibration, LoadError> {
    let threads = surroundings.threads(config) as u64;
    let replicas = config.replicas.get() as u64;
    let of = [
        fingerprint.as_bytes().as_slice(),
        &threads.to_le_bytes(),
        &replicas.to_le_bytes(),
    ];
    let file = KeptFile::new(surroundings.state_folder.as_deref(), "calibration", &of);
    let kept: Option<Calibration> = file.read();
    if let Some(kept) = kept.filter(Calibration::is_usable) {
        return Ok(kept);
    }
    let measured = Calibration::measure(backend).map_err(LoadError::WarmUp)?;
    file.write(&measured);
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(points: &[(usize, usize, f64)]) -> Calibration {
        Calibration {
            measured: points.to_vec(),
        }
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
                .seconds(Shape::default().with(100))
                > 0.0
        );
    }
}
