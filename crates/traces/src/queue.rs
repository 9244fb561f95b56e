//! The spans that wait for the collector: bounded, and taken in batches.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry_sdk::trace::SpanData;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// An export has so many spans at most: about 300 KiB.
const MOST_AT_ONCE: usize = 1024;
/// Spans wait for others so long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The spans that wait for the collector.
pub(crate) struct Queue {
    most: usize,
    state: Mutex<State>,
    /// Told when there is something, when there is enough, and when the queue is closed.
    changed: Notify,
    /// True once the exporter has ended.
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    spans: VecDeque<SpanData>,
    is_closed: bool,
}

impl Queue {
    /// A queue of so many spans.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(false),
        }
    }

    /// Takes the spans of a request; all or none: half a trace misleads. Never waits.
    pub(crate) fn push(&self, spans: Vec<SpanData>) -> bool {
        let mut state = self.lock();
        if state.is_closed || state.spans.len() + spans.len() > self.most {
            return false;
        }
        let before = state.spans.len();
        state.spans.extend(spans);
        let after = state.spans.len();
        drop(state);
        if before == 0 || (before < MOST_AT_ONCE && after >= MOST_AT_ONCE) {
            self.changed.notify_one();
        }
        true
    }

    /// The next spans, as soon as there are enough for an export or the first has waited long enough; none at the end.
    pub(crate) async fn next(&self) -> Option<Vec<SpanData>> {
        let mut until = None;
        loop {
            {
                let mut state = self.lock();
                let n = state.spans.len();
                let is_late = until.is_some_and(|until| Instant::now() >= until);
                if n >= MOST_AT_ONCE || (n > 0 && (state.is_closed || is_late)) {
                    return Some(state.spans.drain(..n.min(MOST_AT_ONCE)).collect());
                }
                if state.is_closed {
                    return None;
                }
                if n > 0 && until.is_none() {
                    until = Some(Instant::now() + LONGEST_WAIT);
                }
            }
            match until {
                // Late or not, the state is looked at again.
                Some(until) => drop(tokio::time::timeout_at(until, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    /// Takes no more, and returns when the exporter has ended.
    pub(crate) async fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
        let mut ended = self.ended.subscribe();
        // The sender is this queue's own.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Notes that the exporter has ended.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::{
        InstrumentationScope,
        trace::{SpanContext, SpanId, SpanKind, Status},
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn spans(n: usize) -> Vec<SpanData> {
        let span = |i| SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: format!("{i}").into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        };
        (0..n).map(span).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_its_first_span_is_old() {
        let queue = Queue::new(10 * MOST_AT_ONCE);
        assert!(queue.push(spans(3)));
        let started = Instant::now();
        assert_eq!(queue.next().await.unwrap().len(), 3);
        assert_eq!(started.elapsed().as_secs(), LONGEST_WAIT.as_secs());
        assert!(queue.push(spans(2 * MOST_AT_ONCE + 1)));
        let started = Instant::now();
        for _ in 0..2 {
            assert_eq!(queue.next().await.unwrap().len(), MOST_AT_ONCE);
        }
        assert!(started.elapsed() < LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_no_part_of_a_trace_and_a_closed_one_gives_the_rest() {
        let queue = Queue::new(5);
        assert!(queue.push(spans(3)));
        assert!(!queue.push(spans(3)));
        assert!(queue.push(spans(2)));
        let closing = queue.close();
        let taking = async {
            assert_eq!(queue.next().await.unwrap().len(), 5);
            assert!(!queue.push(spans(1)));
            assert!(queue.next().await.is_none());
            queue.end();
        };
        tokio::join!(closing, taking);
    }
}
