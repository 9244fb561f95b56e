//! The places in a model's queue, and the size of its batches.

use super::super::{calibrate::Calibration, engine, loader::Loader, resolved::ResolvedModel};
use crate::batch::queue::Budget;

/// An eighth of the queue is left to queries, unless the largest request would not fit then.
pub(super) fn bulk_capacity(capacity: usize, max_inputs: usize) -> usize {
    (capacity - capacity / 8).max(max_inputs.min(capacity))
}

/// The size of batches: as the configuration says, else as it was measured.
pub(super) fn budget(
    loader: &Loader<'_>,
    model: &ResolvedModel,
    calibration: &Calibration,
) -> Budget {
    let Loader { name, config, .. } = *loader;
    let best = match model.backend.is_on_processor() {
        true => calibration.best_batch_tokens(),
        // The batches that are measured are far too small to fill a card.
        false => engine::CARD_TOKENS,
    };
    let max_batch_tokens = model.max_batch_tokens.unwrap_or(best);
    let rate = calibration.tokens_per_second();
    tracing::info!(
        model.name = name,
        max_batch_tokens,
        tokens_per_second = rate,
        "model {name} does about {rate:.0} tokens/s; batches of up to {max_batch_tokens} tokens"
    );
    Budget {
        max_batch_tokens,
        max_batch_seconds: config.max_batch_time.0.as_secs_f64(),
        aging_seconds: config.bulk_max_wait.0.as_secs_f64(),
    }
}
