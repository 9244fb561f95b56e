//! The figures of a server, from two looks at its metrics: the reading side of the names that this crate writes.

mod sample;

use self::sample::{Labels, has};
pub use self::sample::{Sample, States};

/// Routes of probes and of views like this one: they are no traffic.
const ASIDE: [&str; 7] = [
    "/metrics",
    "/readyz",
    "/livez",
    "/health",
    "/v1/models",
    "/v1/cluster/auth",
    "/page/{file}",
];
const MIB: f64 = 1024.0 * 1024.0;

/// The figures of the time between two looks. None is a figure of something that did not happen.
pub struct Figures {
    /// The state of the server, such as `ready`.
    pub state: String,
    /// Answered requests a second; those of probes and of views of the metrics do not count.
    pub requests_per_second: f64,
    /// Milliseconds: the median, and what 95 and 99 of 100 requests took at most.
    pub latency_ms: [Option<f64>; 3],
    /// Tokens a second of answered inputs, those of the cache too.
    pub tokens_per_second: f64,
    /// The share of inputs whose results came from the cache.
    pub hit_percent: Option<f64>,
    /// Inputs that wait: of queries, and of bulk.
    pub waiting: [f64; 2],
    /// The time until all that waits is done: that of the model that takes longest.
    pub backlog_seconds: f64,
    /// The mean of the batches.
    pub sequences_per_batch: Option<f64>,
    /// Refused requests a second, by the code of the error.
    pub refused: Vec<(String, f64)>,
    /// Open connections.
    pub connections: f64,
    /// Resident memory of the process.
    pub resident_mib: f64,
    /// Results in the cache's memory.
    pub cache_mib: f64,
    /// The models, in the order of `/readyz`.
    pub models: Vec<ModelFigures>,
}

/// The figures of a model.
pub struct ModelFigures {
    /// The name that clients use.
    pub name: String,
    /// Its state, such as `loading`.
    pub state: String,
    /// The backend, the device and the precision; empty where it is not in memory.
    pub runs_on: String,
    /// Tokens a second of answered inputs.
    pub tokens_per_second: f64,
    /// Inputs that wait.
    pub waiting: f64,
    /// The machine's memory that it takes, by estimate; 0 for what is on a card.
    pub memory_mib: f64,
}

impl Figures {
    /// Compares a look with an earlier one.
    #[must_use]
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let pair = Pair { before, after };
        let is_traffic = |labels: &Labels| {
            let route = labels.get("route");
            route.is_some_and(|route| !ASIDE.contains(&route.as_str()))
        };
        let all = |_: &Labels| true;
        let seconds = after.since(before).as_secs_f64().max(f64::MIN_POSITIVE);
        let inputs = pair.growth("embedgate_inputs_total", all);
        let hits = pair.growth("embedgate_inputs_total", |labels| {
            has(labels, "result", "hit") || has(labels, "result", "file")
        });
        let lane = |lane| after.sum("embedgate_queue_inputs", |labels| has(labels, "lane", lane));
        let batches = pair.growth("embedgate_batch_sequences_count", all);
        let sequences = pair.growth("embedgate_batch_sequences_sum", all);
        let refused = "embedgate_refused_requests_total";
        let reasons = after.values(refused, "reason").into_iter();
        let refused = reasons.map(|reason| {
            let n = pair.growth(refused, |labels| has(labels, "reason", reason));
            (reason.to_owned(), n / seconds)
        });
        let backlog = "embedgate_backlog_seconds";
        let backlogs = after.values(backlog, "model").into_iter();
        let backlogs =
            backlogs.map(|model| after.sum(backlog, |labels| has(labels, "model", model)));
        Self {
            state: after.states.server.clone(),
            requests_per_second: pair.growth("embedgate_requests_total", is_traffic) / seconds,
            latency_ms: [0.5, 0.95, 0.99].map(|share| {
                let seconds =
                    pair.quantile(share, "embedgate_request_duration_seconds", is_traffic);
                seconds.map(|seconds| seconds * 1e3)
            }),
            tokens_per_second: pair.growth("embedgate_tokens_total", all) / seconds,
            hit_percent: (inputs > 0.0).then(|| 100.0 * hits / inputs),
            waiting: ["query", "bulk"].map(lane),
            backlog_seconds: backlogs.fold(0.0, f64::max),
            sequences_per_batch: (batches > 0.0).then(|| sequences / batches),
            refused: refused.filter(|(_, n)| *n > 0.0).collect(),
            connections: after.sum("embedgate_connections", all),
            resident_mib: after.sum("process_resident_memory_bytes", all) / MIB,
            cache_mib: after.sum("embedgate_cache_bytes", all) / MIB,
            models: pair.models(seconds),
        }
    }
}

/// Two looks.
struct Pair<'a> {
    before: &'a Sample,
    after: &'a Sample,
}

impl Pair<'_> {
    /// By how much a counter grew, over the samples that fit. One that began anew grew from 0.
    fn growth(&self, name: &str, fits: impl Fn(&Labels) -> bool) -> f64 {
        let (before, after) = (self.before.sum(name, &fits), self.after.sum(name, &fits));
        match after < before {
            true => after,
            false => after - before,
        }
    }

    /// The quantile of what a histogram counted, by linear interpolation within a bucket; none where it counted nothing.
    fn quantile(&self, share: f64, name: &str, fits: impl Fn(&Labels) -> bool) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let edges = self.after.values(&bucket, "le").into_iter();
        let mut edges: Vec<(f64, &str)> = edges
            .filter_map(|edge| Some((edge.parse().ok()?, edge)))
            .collect();
        edges.sort_by(|one, other| one.0.total_cmp(&other.0));
        let counts = edges.iter().map(|(_, edge)| {
            self.growth(&bucket, |labels| has(labels, "le", edge) && fits(labels))
        });
        let counts: Vec<f64> = counts.collect();
        let total = counts.last().copied().filter(|total| *total > 0.0)?;
        let rank = share * total;
        let at = counts.iter().position(|count| *count >= rank)?;
        let (low, below) = match at {
            0 => (0.0, 0.0),
            at => (edges[at - 1].0, counts[at - 1]),
        };
        let (high, inside) = (edges[at].0, counts[at] - below);
        if high.is_infinite() || inside == 0.0 {
            return Some(low);
        }
        Some(low + (high - low) * (rank - below) / inside)
    }

    /// The models that the server names; where it names none there, those that are in memory.
    fn models(&self, seconds: f64) -> Vec<ModelFigures> {
        let named = &self.after.states.models;
        if !named.is_empty() {
            let model = |(name, state): &(String, String)| self.model(name, state, seconds);
            return named.iter().map(model).collect();
        }
        let ready = "embedgate_model_ready";
        let names = self.after.values(ready, "model").into_iter();
        let model = |name: &str| {
            let serves = self.after.sum(ready, |labels| has(labels, "model", name)) > 0.0;
            let state = if serves { "ready" } else { "down" };
            self.model(name, state, seconds)
        };
        names.map(model).collect()
    }

    fn model(&self, name: &str, state: &str, seconds: f64) -> ModelFigures {
        let is_its = |labels: &Labels| has(labels, "model", name);
        let info = self.after.labels("embedgate_model_info", is_its);
        let runs_on = info.map_or_else(String::new, |labels| {
            let words = ["backend", "device", "precision"];
            let words = words.into_iter().filter_map(|label| labels.get(label));
            words.map(String::as_str).collect::<Vec<_>>().join(" ")
        });
        ModelFigures {
            name: name.to_owned(),
            state: state.to_owned(),
            runs_on,
            tokens_per_second: self.growth("embedgate_tokens_total", is_its) / seconds,
            waiting: self.after.sum("embedgate_queue_inputs", is_its),
            memory_mib: self.after.sum("embedgate_model_memory_bytes", is_its) / MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use embedgate_core::Backend;
    use embedgate_request::Lane;

    use super::*;
    use crate::Metrics;

    fn states(models: &[(&str, &str)]) -> States {
        let models = models.iter();
        States {
            server: "ready".into(),
            models: models
                .map(|(name, state)| ((*name).into(), (*state).into()))
                .collect(),
        }
    }

    /// Figures of what is counted within two seconds.
    fn counted(states: &States, count: impl FnOnce(&Metrics)) -> Figures {
        let metrics = Metrics::new();
        let model = metrics.model("m");
        model.tokens.inc_by(100);
        metrics.request("/v1/embeddings", 200, Duration::from_millis(9), None);
        let begun = Instant::now();
        let look = |at| Sample::new(&metrics.text(), states.clone(), at);
        let before = look(begun);
        count(&metrics);
        Figures::between(&before, &look(begun + Duration::from_secs(2)))
    }

    fn with_traffic(metrics: &Metrics) {
        for ms in [1, 1, 1, 1, 1, 1, 1, 1, 1, 100] {
            let time = Duration::from_millis(ms);
            metrics.request("/v1/embeddings", 200, time, Some("0af7"));
        }
        metrics.request("/metrics", 200, Duration::from_secs(9), None);
        for _ in 0..4 {
            metrics.refused("overloaded");
        }
        metrics.cache(1, 3 << 20);
        let (backend, _) = embedgate_mock::MockBackend::new(8);
        metrics.runs_on("m", backend.info());
        let model = metrics.model("m");
        model.tokens.inc_by(200);
        model.hits.inc_by(2);
        model.from_file.inc_by(1);
        model.misses.inc_by(1);
        model.queue_inputs[Lane::Bulk as usize].set(7);
        model.backlog_seconds.set(1.5);
        model.batch_sequences.observe(3.0);
        model.batch_sequences.observe(5.0);
        model.ready.set(1);
        model.memory.set(5 << 20);
    }

    #[test]
    fn figures_are_what_was_counted_between_two_looks() {
        let figures = counted(&states(&[("m", "ready")]), with_traffic);
        assert_eq!(figures.requests_per_second, 5.0);
        assert_eq!(figures.tokens_per_second, 100.0);
        assert_eq!(figures.hit_percent, Some(75.0));
        assert_eq!(figures.waiting, [0.0, 7.0]);
        assert_eq!(figures.backlog_seconds, 1.5);
        assert_eq!(figures.sequences_per_batch, Some(4.0));
        assert_eq!(figures.refused, [("overloaded".to_owned(), 2.0)]);
        assert_eq!(figures.cache_mib, 3.0);
        assert!(figures.resident_mib > 0.0);
        // Of ten, nine are in the bucket from 0.5 to 1 ms, and one in that from 64 to 128 ms.
        let [median, p95, p99] = figures.latency_ms.map(Option::unwrap);
        assert!((0.5..=1.0).contains(&median), "{median}");
        assert!((64.0..=128.0).contains(&p95) && p95 < p99, "{p95} {p99}");
        let [model] = figures.models.as_slice() else {
            panic!("{}", figures.models.len());
        };
        assert_eq!((model.name.as_str(), model.state.as_str()), ("m", "ready"));
        assert!(model.runs_on.starts_with("mock "), "{}", model.runs_on);
        assert_eq!(model.tokens_per_second, 100.0);
        assert_eq!((model.waiting, model.memory_mib), (7.0, 5.0));
    }

    #[test]
    fn nothing_is_told_of_what_did_not_happen() {
        let figures = counted(&states(&[("m", "loading")]), |_| {});
        assert_eq!(figures.latency_ms, [None; 3]);
        assert_eq!(
            (figures.hit_percent, figures.sequences_per_batch),
            (None, None)
        );
        assert!(figures.refused.is_empty());
        assert_eq!(figures.models[0].state, "loading");
    }

    #[test]
    fn models_that_the_server_does_not_name_are_those_of_the_metrics() {
        let figures = counted(&states(&[]), with_traffic);
        assert_eq!(figures.models[0].name, "m");
        assert_eq!(figures.models[0].state, "ready");
    }

    #[test]
    fn a_server_that_began_anew_counts_from_zero() {
        let look = |text: &str| Sample::new(text, states(&[]), Instant::now());
        let pair = Pair {
            before: &look("a_total 100\n"),
            after: &look("a_total 30\n"),
        };
        assert_eq!(pair.growth("a_total", |_| true), 30.0);
    }

    #[test]
    fn the_page_leaves_out_the_same_routes() {
        let script = include_str!("../../../src/http/page/traffic.js");
        let list = script.split("const ASIDE = new Set([").nth(1).unwrap();
        let list = list.split(']').next().unwrap();
        let routes: Vec<&str> = list
            .split(", ")
            .map(|route| route.trim_matches('"'))
            .collect();
        assert_eq!(routes, ASIDE);
    }
}
