//! The rule that picks a batch: pure, without clock, channel or async.
//!
//! The oldest entry always goes, so nothing starves. Its company are the entries nearest to it in length, while the
//! batch's cost stays within the budget. An entry that alone exceeds the budget goes alone.

use std::collections::VecDeque;

use embedgate_core::Layout;

struct Waiting<T> {
    tokens: usize,
    payload: T,
}

/// Entries waiting for a backend, oldest first.
pub struct BatchQueue<T> {
    entries: VecDeque<Waiting<T>>,
    layout: Layout,
    max_batch_tokens: usize,
}

impl<T> BatchQueue<T> {
    /// Makes an empty queue for a backend of this layout.
    #[must_use]
    pub fn new(layout: Layout, max_batch_tokens: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            layout,
            max_batch_tokens,
        }
    }

    /// Adds an entry of so many tokens at the end.
    pub fn push(&mut self, tokens: usize, payload: T) {
        self.entries.push_back(Waiting { tokens, payload });
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes the entries that `gone` holds of.
    pub fn discard(&mut self, gone: impl Fn(&T) -> bool) {
        self.entries.retain(|entry| !gone(&entry.payload));
    }

    /// Takes the next batch out; empty only when the queue is.
    pub fn next_batch(&mut self) -> Vec<T> {
        let Some(oldest) = self.entries.front() else {
            return Vec::new();
        };
        let target = oldest.tokens;
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        // Stable: among entries of one length the older go first.
        order.sort_by_key(|&i| self.entries[i].tokens.abs_diff(target));
        let mut taken = vec![false; self.entries.len()];
        let (mut n, mut longest, mut sum) = (0, 0, 0);
        for i in order {
            let tokens = self.entries[i].tokens;
            let (longest_with, sum_with) = (longest.max(tokens), sum + tokens);
            let cost = match self.layout {
                Layout::Padded => longest_with * (n + 1),
                Layout::Packed => sum_with,
            };
            if n > 0 && cost > self.max_batch_tokens {
                break;
            }
            (n, longest, sum) = (n + 1, longest_with, sum_with);
            taken[i] = true;
        }
        self.take(&taken)
    }

    fn take(&mut self, taken: &[bool]) -> Vec<T> {
        let mut batch = Vec::new();
        let entries = std::mem::take(&mut self.entries);
        for (entry, taken) in entries.into_iter().zip(taken) {
            if *taken {
                batch.push(entry.payload);
            } else {
                self.entries.push_back(entry);
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(layout: Layout, budget: usize, tokens: &[usize]) -> BatchQueue<usize> {
        let mut queue = BatchQueue::new(layout, budget);
        for (i, tokens) in tokens.iter().enumerate() {
            queue.push(*tokens, i);
        }
        queue
    }

    #[test]
    fn the_oldest_goes_with_its_nearest_in_length() {
        let mut queue = queue(Layout::Padded, 40, &[10, 500, 9, 30, 12, 11]);
        assert_eq!(queue.next_batch(), [0, 2, 5]);
        assert_eq!(queue.next_batch(), [1], "over the budget, alone");
        assert_eq!(queue.next_batch(), [3]);
        assert_eq!(queue.next_batch(), [4]);
        assert_eq!(queue.next_batch(), Vec::<usize>::new());
    }

    #[test]
    fn packed_batches_count_tokens_and_not_padding() {
        let mut queue = queue(Layout::Packed, 40, &[10, 20, 5]);
        assert_eq!(queue.next_batch(), [0, 1, 2]);
    }

    #[test]
    fn the_gone_are_discarded() {
        let mut queue = queue(Layout::Packed, 40, &[1, 1, 1]);
        queue.discard(|payload| *payload == 1);
        assert_eq!(queue.next_batch(), [0, 2]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_over_the_budget(
            tokens in prop::collection::vec(1_usize..600, 0..200),
            budget in 1_usize..2000,
            padded in any::<bool>(),
        ) {
            let layout = if padded { Layout::Padded } else { Layout::Packed };
            let mut queue = queue(layout, budget, &tokens);
            let mut seen = Vec::new();
            let mut oldest = 0;
            while !queue.is_empty() {
                let batch = queue.next_batch();
                let lengths: Vec<usize> = batch.iter().map(|i| tokens[*i]).collect();
                let cost = match layout {
                    Layout::Padded => lengths.iter().max().unwrap() * lengths.len(),
                    Layout::Packed => lengths.iter().sum(),
                };
                prop_assert!(cost <= budget || batch.len() == 1);
                prop_assert!(batch.contains(&oldest), "the oldest waits");
                seen.extend(batch);
                oldest = (0..tokens.len()).find(|i| !seen.contains(i)).unwrap_or(0);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..tokens.len()).collect::<Vec<_>>());
        }
    }
}
