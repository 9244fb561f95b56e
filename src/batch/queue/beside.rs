//! The batches of short sequences that go beside a long batch, while it pauses.

use embedgate_request::Lane;

use super::BatchQueue;
use crate::batch::cost::BatchShape;

impl<T> BatchQueue<T> {
    /// Most tokens of a sequence that goes beside a long batch; 0 where batches cannot pause.
    #[must_use]
    pub(crate) fn most_beside(&self) -> usize {
        if self.can_pause {
            self.cost.longest_within(self.budget.max_batch_seconds)
        } else {
            0
        }
    }

    /// Returns the lane whose short batches may run during a batch of this lane. No batch runs during one that takes no
    /// longer than a query should wait. Bulk runs only during bulk that is long by one sequence: short sequences gain
    /// nothing by overtaking their like.
    #[must_use]
    pub(crate) fn beside(&self, lane: Lane, shape: BatchShape) -> Option<Lane> {
        let is_long = self.can_pause && self.cost.seconds(shape) > self.budget.max_batch_seconds;
        let has_long = shape.longest > self.most_beside();
        let beside = if has_long { lane } else { Lane::Query };
        is_long.then_some(beside)
    }

    /// Returns true when a short sequence waits that may run during a long batch of this lane.
    #[must_use]
    pub(crate) fn has_short(&self, beside: Lane) -> bool {
        self.lane_of_short(beside).is_some()
    }

    /// Takes a batch out that goes beside a long one of this lane: queries first, and bulk beside bulk alone.
    pub(crate) fn next_short_batch(&mut self, beside: Lane, now: f64) -> Vec<T> {
        let Some(lane) = self.lane_of_short(beside) else {
            return Vec::new();
        };
        if lane == Lane::Bulk {
            self.last_bulk_batch = now;
        }
        let (most_tokens, max_seconds) = (self.most_beside(), self.budget.max_batch_seconds);
        self.take(lane, most_tokens, max_seconds)
    }

    fn lane_of_short(&self, beside: Lane) -> Option<Lane> {
        let most_tokens = self.most_beside();
        let lanes: &[Lane] = match beside {
            Lane::Query => &[Lane::Query],
            Lane::Bulk => &[Lane::Query, Lane::Bulk],
        };
        let has_short = |lane: &&Lane| {
            let shortest = self.lanes[**lane as usize].shortest();
            shortest.is_some_and(|tokens| tokens <= most_tokens)
        };
        lanes.iter().find(has_short).copied()
    }
}
