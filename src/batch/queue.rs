//! The rule that picks a batch: pure, without clock, channel or async. The caller passes `now`, in seconds from any moment.
//!
//! Two lanes: queries go first, bulk goes when no query waits. A batch is of one lane. The lane's first entry by the order of
//! requests always goes, so nothing starves within it, and the requests of a lane end in the order in which they came, about.
//! Its company are the entries nearest to it in length, of a window of those that are next ([`lane`](super::lane)), while the
//! batch stays within its budgets, and while each costs less in this batch than in one of its own: padding can cost more than a
//! batch. An entry that alone exceeds the budgets goes alone. Bulk that has had no batch for `aging_seconds` goes before the queries
//! once: however long its batch takes, queries have the next one.
//!
//! A batch may take longer than batches may while queries are about: one long sequence, or bulk. Where the backend can
//! pause, short sequences do not wait for its end: they go in batches beside it.

mod beside;

use embedgate_request::Lane;

use super::{
    cost::{BatchShape, CostModel},
    lane::{LaneQueue, Waiting},
};

/// Bulk batches are kept short for so long after a query: more of them are likely.
const QUERIES_ARE_ABOUT_SECONDS: f64 = 10.0;
/// Seconds that a batch costs in addition to the backend's time: to pick it, to hand it over and to hand its results
/// out. Measured as about this.
const HAND_OVER_SECONDS: f64 = 0.000_2;

/// The limits of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    /// Most computed tokens in one batch.
    pub max_batch_tokens: usize,
    /// Longest batch while queries are about, in predicted seconds.
    pub max_batch_seconds: f64,
    /// Bulk has a batch at least this often, whatever the queries.
    pub aging_seconds: f64,
}

/// Entries waiting for a backend.
pub(crate) struct BatchQueue<T> {
    lanes: [LaneQueue<T>; 2],
    budget: Budget,
    cost: CostModel,
    /// True when batches can pause.
    can_pause: bool,
    last_query: f64,
    last_bulk_batch: f64,
    /// True when the last batch was of bulk that went before queries.
    bulk_went_first: bool,
}

impl<T> BatchQueue<T> {
    /// Makes an empty queue for a backend of these costs, whose batches cannot pause.
    #[must_use]
    pub(crate) fn new(budget: Budget, cost: CostModel) -> Self {
        Self {
            lanes: [(); 2].map(|()| LaneQueue::new(budget.max_batch_tokens)),
            budget,
            cost,
            can_pause: false,
            last_query: f64::NEG_INFINITY,
            last_bulk_batch: f64::NEG_INFINITY,
            bulk_went_first: false,
        }
    }

    /// Returns this queue for a backend whose batches can pause.
    #[must_use]
    pub(crate) fn with_pauses(self) -> Self {
        Self {
            can_pause: true,
            ..self
        }
    }

    /// Puts an entry that was taken out, and not run, back to its place.
    pub(crate) fn put_back(&mut self, waiting: Waiting<T>) {
        self.lane(waiting.lane).push(waiting);
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, now: f64, waiting: Waiting<T>) {
        if waiting.lane == Lane::Query {
            self.last_query = now;
        }
        self.lane(waiting.lane).push(waiting);
    }

    /// Returns true when no entry waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(LaneQueue::is_empty)
    }

    /// Entries that wait in a lane.
    #[must_use]
    pub(crate) fn len(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].len()
    }

    /// The costs, to learn from batches.
    pub(crate) fn cost_mut(&mut self) -> &mut CostModel {
        &mut self.cost
    }

    /// Returns true when a batch had at least half of the computed tokens that a batch may have.
    #[must_use]
    pub(crate) fn is_large(&self, shape: BatchShape) -> bool {
        shape.computed_tokens(self.cost.layout()) * 2 >= self.budget.max_batch_tokens
    }

    /// Removes the entries that `gone` holds of.
    pub(crate) fn discard(&mut self, gone: impl Fn(&T) -> bool) {
        for lane in &mut self.lanes {
            drop(lane.extract(&gone));
        }
    }

    /// Moves the bulk entries that `is_query` holds of to the other lane.
    pub(crate) fn promote(&mut self, now: f64, is_query: impl Fn(&T) -> bool) {
        for waiting in self.lane(Lane::Bulk).extract(is_query) {
            let lane = Lane::Query;
            self.push(now, Waiting { lane, ..waiting });
        }
    }

    /// Takes the next batch out; empty only when the queue is.
    pub(crate) fn next_batch(&mut self, now: f64) -> Vec<T> {
        let Some(lane) = self.next_lane(now) else {
            return Vec::new();
        };
        let queries_are_about =
            lane == Lane::Query || now - self.last_query < QUERIES_ARE_ABOUT_SECONDS;
        let max_seconds = if queries_are_about {
            self.budget.max_batch_seconds
        } else {
            f64::INFINITY
        };
        if lane == Lane::Bulk {
            self.last_bulk_batch = now;
        }
        self.bulk_went_first = lane == Lane::Bulk && self.len(Lane::Query) > 0;
        self.take(lane, usize::MAX, max_seconds)
    }

    /// Takes the first entry of no more than so many tokens out, and what goes with it.
    fn take(&mut self, lane: Lane, most_tokens: usize, max_seconds: f64) -> Vec<T> {
        let (budget, cost) = (self.budget, self.cost);
        let fits = |batch: BatchShape, next: BatchShape| {
            let together = batch.with(next.longest);
            let seconds = cost.seconds(together);
            let apart = cost.seconds(batch) + cost.seconds(next) + HAND_OVER_SECONDS;
            together.computed_tokens(cost.layout()) <= budget.max_batch_tokens
                && seconds <= max_seconds
                && seconds <= apart
        };
        self.lane(lane).take(most_tokens, fits)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.lanes
            .iter_mut()
            .flat_map(|lane| lane.extract(|_| true))
            .map(|waiting| waiting.payload)
            .collect()
    }

    fn next_lane(&mut self, now: f64) -> Option<Lane> {
        let bulk_since = self.lane(Lane::Bulk).first_since();
        let has_query = !self.lane(Lane::Query).is_empty();
        let is_aged =
            |since: f64| now - since.max(self.last_bulk_batch) > self.budget.aging_seconds;
        match (has_query, bulk_since) {
            (false, None) => None,
            (true, Some(since)) if is_aged(since) && !self.bulk_went_first => Some(Lane::Bulk),
            (true, _) => Some(Lane::Query),
            (false, Some(_)) => Some(Lane::Bulk),
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue<T> {
        &mut self.lanes[lane as usize]
    }
}

#[cfg(test)]
mod tests {
    use embedgate_core::Layout;
    use proptest::prelude::*;

    use super::*;

    fn push(queue: &mut BatchQueue<usize>, waiting: Waiting<usize>) {
        queue.push(waiting.since, waiting);
    }

    /// An entry of a request of its own, of which later ones have higher payloads.
    fn waiting(lane: Lane, tokens: usize, since: f64, payload: usize) -> Waiting<usize> {
        Waiting {
            lane,
            tokens,
            place: payload as u64,
            since,
            payload,
        }
    }

    /// Batches of at most so many tokens; a batch takes 5 ms and 1 ms a token; bulk ages in 5 s; batches last 210 ms at most.
    fn empty(layout: Layout, max_batch_tokens: usize) -> BatchQueue<usize> {
        let budget = Budget {
            max_batch_tokens,
            max_batch_seconds: 0.21,
            aging_seconds: 5.0,
        };
        let cost = CostModel::new(layout, [0.005, 0.001, 0.0]);
        BatchQueue::new(budget, cost).with_pauses()
    }

    fn queue(layout: Layout, max_batch_tokens: usize, tokens: &[usize]) -> BatchQueue<usize> {
        let mut queue = empty(layout, max_batch_tokens);
        for (i, tokens) in tokens.iter().enumerate() {
            push(&mut queue, waiting(Lane::Bulk, *tokens, 0.0, i));
        }
        queue
    }

    #[test]
    fn the_oldest_goes_with_its_nearest_in_length() {
        let mut queue = queue(Layout::Padded, 40, &[10, 500, 9, 30, 12, 11]);
        assert_eq!(queue.next_batch(0.0), [0, 2, 5]);
        assert_eq!(queue.next_batch(0.0), [1], "over the budget, alone");
        assert_eq!(queue.next_batch(0.0), [3]);
        assert_eq!(queue.next_batch(0.0), [4]);
        assert_eq!(queue.next_batch(0.0), Vec::<usize>::new());
    }

    #[test]
    fn requests_end_in_the_order_in_which_they_came() {
        // 28 requests of 64 inputs, which arrive one from each in turn.
        let mut queue = empty(Layout::Padded, 256);
        for i in 0..28 * 64 {
            let request = i % 28;
            let entry = Waiting {
                place: request as u64,
                ..waiting(Lane::Bulk, 20 + i * 7 % 90, 0.0, request)
            };
            queue.push(0.0, entry);
        }
        let (mut left, mut ends, mut inputs) = ([64; 28], Vec::new(), 0);
        while !queue.is_empty() {
            for request in queue.next_batch(0.0) {
                left[request] -= 1;
                inputs += 1;
                if left[request] == 0 {
                    ends.push((request, inputs));
                }
            }
        }
        let order: Vec<usize> = ends.iter().map(|(request, _)| *request).collect();
        assert_eq!(order, (0..28).collect::<Vec<_>>());
        for (request, ended) in ends {
            // The window holds about 64 of them.
            assert!(ended <= 64 * (request + 1) + 64, "{request} at {ended}");
        }
    }

    #[test]
    fn neighbours_in_a_window_are_nearly_as_alike_as_in_all_that_wait() {
        let lengths: Vec<usize> = (0..2000).map(|i| 20 + i * 37 % 91).collect();
        let mut windows = queue(Layout::Padded, 256, &lengths);
        let mut sorted = lengths.clone();
        sorted.sort_unstable();
        let mut all = queue(Layout::Padded, 256, &sorted);
        let seconds = |queue: &mut BatchQueue<usize>, lengths: &[usize]| {
            let mut seconds = 0.0;
            while !queue.is_empty() {
                let batch = queue.next_batch(0.0);
                let shape = batch.iter().map(|i| lengths[*i]).collect();
                seconds += queue.cost_mut().seconds(shape);
            }
            seconds
        };
        let ratio = seconds(&mut windows, &lengths) / seconds(&mut all, &sorted);
        assert!((1.0..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn packed_batches_count_tokens_and_not_padding() {
        let mut queue = queue(Layout::Packed, 40, &[10, 20, 5]);
        assert_eq!(queue.next_batch(0.0), [0, 2, 1]);
    }

    #[test]
    fn who_would_pad_the_others_for_more_than_a_batch_of_its_own_stays_out() {
        // 60 beside 50 and 50 are 20 tokens of padding, 20 ms; a batch of its own costs 5 ms more than its tokens.
        let mut padded = queue(Layout::Padded, 1000, &[50, 50, 60, 52]);
        assert_eq!(padded.next_batch(0.0), [0, 1, 3]);
        assert_eq!(padded.next_batch(0.0), [2]);
        let mut packed = queue(Layout::Packed, 1000, &[50, 50, 60, 52]);
        assert_eq!(packed.next_batch(0.0).len(), 4);
    }

    #[test]
    fn the_gone_are_discarded() {
        let mut queue = queue(Layout::Packed, 40, &[1, 1, 1]);
        queue.discard(|payload| *payload == 1);
        assert_eq!(queue.next_batch(0.0), [0, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn beside_a_long_batch_go_short_ones_of_its_lane_or_queries() {
        let mut queue = empty(Layout::Packed, 1000);
        for (lane, tokens, payload) in [
            (Lane::Query, 900, 0),
            (Lane::Bulk, 20, 1),
            (Lane::Bulk, 900, 2),
        ] {
            push(&mut queue, waiting(lane, tokens, 0.0, payload));
        }
        let beside =
            |lane, lengths: &[usize]| queue.beside(lane, lengths.iter().copied().collect());
        assert_eq!(beside(Lane::Bulk, &[204]), None);
        assert_eq!(beside(Lane::Bulk, &[206]), Some(Lane::Bulk));
        assert_eq!(beside(Lane::Query, &[206]), Some(Lane::Query));
        assert_eq!(beside(Lane::Bulk, &[103, 103]), Some(Lane::Query));
        assert!(!queue.has_short(Lane::Query), "no bulk beside a query");
        assert_eq!(
            queue.next_short_batch(Lane::Query, 1.0),
            Vec::<usize>::new()
        );
        push(&mut queue, waiting(Lane::Query, 100, 1.0, 3));
        push(&mut queue, waiting(Lane::Query, 100, 1.0, 4));
        push(&mut queue, waiting(Lane::Query, 100, 1.0, 5));
        assert!(queue.has_short(Lane::Query));
        // Two take 205 ms, within 210.
        assert_eq!(queue.next_short_batch(Lane::Bulk, 1.0), [3, 4]);
        assert_eq!(queue.next_short_batch(Lane::Query, 1.0), [5]);
        assert_eq!(queue.next_short_batch(Lane::Bulk, 1.0), [1]);
        assert!(!queue.has_short(Lane::Bulk));
        assert_eq!(queue.next_batch(1.0), [0]);
        assert_eq!(queue.next_batch(1.0), [2]);
    }

    #[test]
    fn what_is_put_back_keeps_its_place() {
        let mut queue = empty(Layout::Packed, 10);
        for (i, tokens) in [300, 10, 10, 10].into_iter().enumerate() {
            push(&mut queue, waiting(Lane::Query, tokens, i as f64, i));
        }
        let short = queue.next_short_batch(Lane::Query, 4.0)[0];
        assert_eq!(short, 1);
        queue.put_back(waiting(Lane::Query, 10, 1.0, short));
        let order: Vec<usize> = (0..4).map(|_| queue.next_batch(5.0)[0]).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_short_follows_what_batches_take() {
        let mut queue = empty(Layout::Packed, 1000);
        assert!((204..=205).contains(&queue.most_beside()));
        let shape: BatchShape = [205].into_iter().collect();
        for _ in 0..200 {
            queue.cost_mut().observe(shape, 0.42);
        }
        assert!(
            (95..=105).contains(&queue.most_beside()),
            "{}",
            queue.most_beside()
        );
        push(&mut queue, waiting(Lane::Query, 200, 0.0, 0));
        assert!(!queue.has_short(Lane::Query));
    }

    #[test]
    fn nothing_is_long_where_batches_cannot_pause() {
        let budget = empty(Layout::Packed, 10).budget;
        let cost = CostModel::new(Layout::Packed, [0.0, 1.0, 0.0]);
        let mut queue = BatchQueue::new(budget, cost);
        push(&mut queue, waiting(Lane::Query, 1, 0.0, 7));
        assert_eq!(queue.beside(Lane::Query, [100].into_iter().collect()), None);
        assert!(!queue.has_short(Lane::Bulk));
        assert_eq!(queue.next_short_batch(Lane::Bulk, 1.0), Vec::<usize>::new());
    }

    #[test]
    fn queries_go_first_and_do_not_mix_with_bulk() {
        let mut queue = queue(Layout::Packed, 100, &[10, 10]);
        push(&mut queue, waiting(Lane::Query, 10, 0.1, 7));
        push(&mut queue, waiting(Lane::Query, 10, 0.1, 8));
        assert_eq!(queue.next_batch(0.1), [7, 8]);
        assert_eq!(queue.next_batch(0.1), [0, 1]);
    }

    #[test]
    fn bulk_that_had_no_batch_for_long_goes_before_queries_once() {
        let mut queue = queue(Layout::Packed, 10, &[10, 10]);
        for i in 0..9 {
            push(
                &mut queue,
                waiting(Lane::Query, 10, f64::from(i), 100 + i as usize),
            );
        }
        let order: Vec<usize> = (0..9).map(|i| queue.next_batch(f64::from(i))[0]).collect();
        assert_eq!(order, [100, 101, 102, 103, 104, 105, 0, 106, 107]);
    }

    #[test]
    fn bulk_whose_batches_last_longer_than_it_ages_leaves_queries_every_other_one() {
        let mut queue = queue(Layout::Packed, 10, &[10, 10, 10]);
        for i in 0..3 {
            push(&mut queue, waiting(Lane::Query, 10, 0.0, 100 + i));
        }
        let order: Vec<usize> = (1..=6)
            .map(|i| queue.next_batch(f64::from(i) * 6.0)[0])
            .collect();
        assert_eq!(order, [0, 100, 1, 101, 2, 102]);
    }

    #[test]
    fn bulk_batches_are_short_while_queries_are_about() {
        let lengths = [100; 20];
        let mut alone = queue(Layout::Packed, 1000, &lengths);
        assert_eq!(alone.next_batch(0.0).len(), 10);
        let mut beside = queue(Layout::Packed, 1000, &lengths);
        push(&mut beside, waiting(Lane::Query, 10, 0.0, 99));
        assert_eq!(beside.next_batch(0.0), [99]);
        assert_eq!(
            beside.next_batch(1.0).len(),
            2,
            "210 ms are 200 tokens and the batch itself"
        );
        assert_eq!(beside.next_batch(60.0).len(), 10, "long after the query");
    }

    #[test]
    fn a_bulk_entry_that_a_query_waits_for_is_promoted() {
        let mut queue = queue(Layout::Packed, 10, &[10, 10, 10]);
        queue.promote(1.0, |payload| *payload == 2);
        assert_eq!((queue.len(Lane::Query), queue.len(Lane::Bulk)), (1, 2));
        assert_eq!(queue.next_batch(1.0), [2]);
        assert_eq!(queue.next_batch(1.0), [0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_over_the_budget(
            entries in prop::collection::vec((1_usize..600, any::<bool>(), 0.0_f64..3.0), 0..200),
            budget in 1_usize..2000,
            padded in any::<bool>(),
        ) {
            let layout = if padded { Layout::Padded } else { Layout::Packed };
            let mut queue = empty(layout, budget);
            let mut now = 0.0;
            for (i, (tokens, is_query, pause)) in entries.iter().enumerate() {
                now += pause;
                let lane = if *is_query { Lane::Query } else { Lane::Bulk };
                push(&mut queue, waiting(lane, *tokens, now, i));
            }
            let mut seen = Vec::new();
            let mut last_bulk = now;
            while !queue.is_empty() {
                now += 1.0;
                let batch = queue.next_batch(now);
                prop_assert!(!batch.is_empty());
                let shape: BatchShape = batch.iter().map(|i| entries[*i].0).collect();
                prop_assert!(batch.len() == 1 || shape.computed_tokens(layout) <= budget);
                prop_assert!(batch.iter().all(|i| entries[*i].1 == entries[batch[0]].1));
                if !entries[batch[0]].1 {
                    last_bulk = now;
                }
                prop_assert!(queue.len(Lane::Bulk) == 0 || now - last_bulk <= 6.0, "bulk starves");
                // The first of a batch is the oldest of its lane.
                let is_query = entries[batch[0]].1;
                let oldest = (0..entries.len()).find(|i| entries[*i].1 == is_query && !seen.contains(i));
                prop_assert_eq!(Some(batch[0]), oldest);
                seen.extend(batch);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..entries.len()).collect::<Vec<_>>());
        }
    }
}
