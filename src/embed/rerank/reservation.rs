//! Room in the queue for documents while they are prepared.

use embedgate_request::{Error, Input};

use super::RerankTask;
use crate::{
    batch::{Admission, Patience},
    embed::charge::Charge,
};

/// Documents that are being tokenized and cut hold what they will need: who finds no room is turned away before that
/// work. What becomes of them takes its own, so that this is given back, and its price with it, whatever happens.
pub(super) struct Reservation<'a> {
    _admissions: Vec<Admission>,
    charge: Option<Charge<'a>>,
}

impl<'a> Reservation<'a> {
    /// # Errors
    /// As [`crate::batch::Batcher::admit`].
    pub(super) fn take(task: &'a RerankTask<'_>, documents: &[Input]) -> Result<Self, Error> {
        let estimate = |document| task.model.estimate_tokens(document);
        let estimates: Vec<usize> = documents.iter().map(estimate).collect();
        let batcher = task.model.batcher();
        let admissions = batcher.admit(&estimates, task.lane, Patience::of(&task.ctx))?;
        let charge = Charge::estimated(&task.ctx, || estimates.iter().sum())?;
        Ok(Self {
            _admissions: admissions,
            charge: Some(charge),
        })
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            charge.settle(0);
        }
    }
}
