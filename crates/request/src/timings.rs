//! Where the time of one request goes: the sum of each step of its inputs and, where it is traced, its spans.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A trace has so many spans of batches at most: a request of more inputs has its last ones together in one.
const MOST_BATCHES: usize = 64;

/// A step on the way of an input that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for a tokenizer thread and becomes tokens.
    Tokenize,
    /// It waits in the queue.
    Queue,
    /// Its batch runs.
    Compute,
}

impl Step {
    /// The name of its span.
    fn name(self) -> &'static str {
        match self {
            Self::Tokenize => "tokenize",
            Self::Queue => "queue",
            Self::Compute => "inference",
        }
    }
}

/// The time that the inputs of one request spent in each step. Inputs that were cached, or that other requests compute,
/// spend nothing.
#[derive(Debug, Default)]
pub struct Timings {
    /// Nanoseconds of all inputs, by step.
    nanoseconds: [AtomicU64; 3],
    n_inputs: AtomicU64,
    /// None where nobody traces the request.
    spans: Option<Mutex<Vec<Span>>>,
}

/// A part of a request's time, for its trace.
#[derive(Clone, Debug)]
pub struct Span {
    /// What was done, such as `auth` or `queue`.
    pub name: Cow<'static, str>,
    /// The time when it began: with the first input, where it has several.
    pub started: Instant,
    /// The time when it ended: with the last input.
    pub ended: Instant,
    /// The inputs that it counts; 0 where it is of the whole request.
    pub n_inputs: usize,
    /// The batch in which the inputs were.
    pub batch: Option<Arc<BatchRun>>,
}

/// One batch of a model, which traces of several requests link to.
#[derive(Debug)]
pub struct BatchRun {
    /// The name of the model.
    pub model: Arc<str>,
    /// The time when it began.
    pub started: Instant,
    /// The time when it ended.
    pub ended: Instant,
    /// Its sequences.
    pub n_sequences: usize,
    /// Their tokens.
    pub n_tokens: usize,
    ids: OnceLock<(u128, u64)>,
}

impl BatchRun {
    /// A batch that has run.
    #[must_use]
    pub fn new(model: Arc<str>, started: Instant, n_sequences: usize, n_tokens: usize) -> Self {
        Self {
            model,
            started,
            ended: Instant::now(),
            n_sequences,
            n_tokens,
            ids: OnceLock::new(),
        }
    }

    /// The ids of its trace and of its span, and whether they were made by this call: then it is the caller who exports it.
    pub fn ids(&self, new: impl FnOnce() -> (u128, u64)) -> ((u128, u64), bool) {
        let mut is_new = false;
        let ids = self.ids.get_or_init(|| {
            is_new = true;
            new()
        });
        (*ids, is_new)
    }
}

impl Timings {
    /// Those of a request that is traced.
    #[must_use]
    pub fn traced() -> Self {
        Self {
            spans: Some(Mutex::default()),
            ..Self::default()
        }
    }

    /// Returns true where the request is traced.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.spans.is_some()
    }

    /// Adds what one input spent.
    pub fn add(&self, step: Step, started: Instant, ended: Instant) {
        self.add_time(step, ended.saturating_duration_since(started));
        self.extend_span(step, started, ended, None);
    }

    /// Adds the time that one input spent in its batch.
    pub fn add_batch(&self, started: Instant, ended: Instant, batch: Option<&Arc<BatchRun>>) {
        self.add_time(Step::Compute, ended.saturating_duration_since(started));
        self.extend_span(Step::Compute, started, ended, batch);
    }

    fn add_time(&self, step: Step, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[step as usize].fetch_add(nanoseconds, Ordering::Relaxed);
        if step == Step::Tokenize {
            self.n_inputs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One span a step, and one a batch, however many inputs there are.
    fn extend_span(
        &self,
        step: Step,
        started: Instant,
        ended: Instant,
        batch: Option<&Arc<BatchRun>>,
    ) {
        let Some(spans) = &self.spans else {
            return;
        };
        let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
        let name = step.name();
        let is_full = spans.len() >= MOST_BATCHES;
        let same = spans.iter_mut().rev().find(|span| {
            let same_batch = match (&span.batch, batch) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
            span.name == name && (same_batch || is_full)
        });
        match same {
            Some(span) => {
                span.started = span.started.min(started);
                span.ended = span.ended.max(ended);
                span.n_inputs += 1;
            }
            None => spans.push(Span {
                name: name.into(),
                started,
                ended,
                n_inputs: 1,
                batch: batch.cloned(),
            }),
        }
    }

    /// Begins a span of the whole request, which ends when the value is dropped.
    pub fn span(&self, name: &'static str) -> OpenSpan<'_> {
        self.open(|| name.into())
    }

    /// As [`Timings::span`], with a name that is made where the request is traced.
    pub fn span_named(&self, name: impl FnOnce() -> String) -> OpenSpan<'_> {
        self.open(|| name().into())
    }

    fn open(&self, name: impl FnOnce() -> Cow<'static, str>) -> OpenSpan<'_> {
        OpenSpan(self.spans.as_ref().map(|spans| Begun {
            spans,
            name: name(),
            started: Instant::now(),
        }))
    }

    /// The spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let lock = |spans: &Mutex<Vec<Span>>| {
            let spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.clone()
        };
        self.spans.as_ref().map(lock).unwrap_or_default()
    }

    /// The inputs that were computed.
    #[must_use]
    pub fn n_inputs(&self) -> u64 {
        self.n_inputs.load(Ordering::Relaxed)
    }

    /// The mean of an input that was computed; zero where none was.
    #[must_use]
    pub fn mean(&self, step: Step) -> Duration {
        let sum = self.nanoseconds[step as usize].load(Ordering::Relaxed);
        Duration::from_nanos(sum / self.n_inputs().max(1))
    }
}

/// A span that has begun; of a request that is not traced, nothing.
pub struct OpenSpan<'a>(Option<Begun<'a>>);

struct Begun<'a> {
    spans: &'a Mutex<Vec<Span>>,
    name: Cow<'static, str>,
    started: Instant,
}

impl Drop for OpenSpan<'_> {
    fn drop(&mut self) {
        if let Some(Begun {
            spans,
            name,
            started,
        }) = self.0.take()
        {
            let span = Span {
                name,
                started,
                ended: Instant::now(),
                n_inputs: 0,
                batch: None,
            };
            let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if a step had taken so long, from a moment on.
    fn add(timings: &Timings, step: Step, started: Instant, milliseconds: u64) {
        timings.add(step, started, started + Duration::from_millis(milliseconds));
    }

    #[test]
    fn a_step_counts_with_its_mean_over_the_inputs_that_were_computed() {
        let timings = Timings::default();
        assert_eq!(timings.mean(Step::Compute), Duration::ZERO);
        let now = Instant::now();
        for milliseconds in [2, 4] {
            add(&timings, Step::Tokenize, now, milliseconds);
            add(&timings, Step::Compute, now, 10 * milliseconds);
        }
        assert_eq!(timings.mean(Step::Tokenize), Duration::from_millis(3));
        assert_eq!(timings.mean(Step::Compute), Duration::from_millis(30));
        assert_eq!(timings.mean(Step::Queue), Duration::ZERO);
        drop(timings.span("auth"));
        assert!(timings.spans().is_empty());
    }

    #[test]
    fn a_trace_has_a_span_a_step_and_a_span_a_batch() {
        let timings = Timings::traced();
        let now = Instant::now();
        let later = now + Duration::from_millis(7);
        drop(timings.span("auth"));
        add(&timings, Step::Queue, later, 5);
        add(&timings, Step::Queue, now, 5);
        let batch = |n| Arc::new(BatchRun::new("m".into(), now, n, 10 * n));
        let (one, other) = (batch(2), batch(1));
        for batch in [&one, &one, &other] {
            timings.add_batch(now, later, Some(batch));
        }
        let spans = timings.spans();
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["auth", "queue", "inference", "inference"]);
        let queue = &spans[1];
        assert_eq!((queue.started, queue.n_inputs), (now, 2));
        assert_eq!(queue.ended, later + Duration::from_millis(5));
        assert_eq!((spans[2].n_inputs, spans[3].n_inputs), (2, 1));
    }

    #[test]
    fn a_request_of_many_batches_has_a_bounded_trace() {
        let timings = Timings::traced();
        let now = Instant::now();
        for _ in 0..3 * MOST_BATCHES {
            let batch = Arc::new(BatchRun::new("m".into(), now, 1, 1));
            timings.add_batch(now, now, Some(&batch));
        }
        let spans = timings.spans();
        assert_eq!(spans.len(), MOST_BATCHES);
        let n: usize = spans.iter().map(|span| span.n_inputs).sum();
        assert_eq!(n, 3 * MOST_BATCHES);
    }

    #[test]
    fn one_of_the_traces_of_a_batch_exports_it() {
        let batch = BatchRun::new("m".into(), Instant::now(), 1, 1);
        assert_eq!(batch.ids(|| (1, 2)), ((1, 2), true));
        assert_eq!(batch.ids(|| (3, 4)), ((1, 2), false));
    }
}
