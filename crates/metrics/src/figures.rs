//! What can be told of a server from two looks at its metrics: the reading side of the names that this crate writes.

mod sample;

use self::sample::is;
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
        let is_traffic = |route: &str| !ASIDE.contains(&route);
        let seconds = after.since(before).as_secs_f64().max(f64::MIN_POSITIVE);
        let inputs = pair.growth("embedgate_inputs_total", "", |_| true);
        let hits = pair.growth("embedgate_inputs_total", "result", |result| {
            result == "hit" || result == "file"
        });
        let waiting = |lane: &str| after.sum_of("embedgate_queue_inputs", "lane", lane);
        let batches = pair.growth("embedgate_batch_sequences_count", "", |_| true);
        let sequences = pair.growth("embedgate_batch_sequences_sum", "", |_| true);
        let refused = "embedgate_refused_requests_total";
        let reasons = after.values(refused, "reason").into_iter();
        let refused = reasons.map(|reason| {
            let n = pair.growth(refused, "reason", |other| other == reason);
            (reason.to_owned(), n / seconds)
        });
        let models = after.states.models.iter();
        let backlog = models.clone();
        let backlog =
            backlog.map(|(name, _)| after.sum_of("embedgate_backlog_seconds", "model", name));
        Self {
            state: after.states.server.clone(),
            requests_per_second: pair.growth("embedgate_requests_total", "route", is_traffic)
                / seconds,
            latency_ms: [0.5, 0.95, 0.99].map(|share| {
                let seconds =
                    pair.quantile(share, "embedgate_request_duration_seconds", is_traffic);
                seconds.map(|seconds| seconds * 1e3)
            }),
            tokens_per_second: pair.growth("embedgate_tokens_total", "", |_| true) / seconds,
            hit_percent: (inputs > 0.0).then(|| 100.0 * hits / inputs),
            waiting: ["query", "bulk"].map(waiting),
            backlog_seconds: backlog.fold(0.0, f64::max),
            sequences_per_batch: (batches > 0.0).then(|| sequences / batches),
            refused: refused.filter(|(_, n)| *n > 0.0).collect(),
            connections: after.sum("embedgate_connections", |_| true),
            resident_mib: after.sum("process_resident_memory_bytes", |_| true) / MIB,
            cache_mib: after.sum("embedgate_cache_bytes", |_| true) / MIB,
            models: models
                .map(|(name, state)| pair.model(name, state, seconds))
                .collect(),
        }
    }
}

/// Two looks.
struct Pair<'a> {
    before: &'a Sample,
    after: &'a Sample,
}

impl Pair<'_> {
    /// By how much a counter grew, over the samples whose label fits; without a label, all do. A counter that began anew grew
    /// from 0.
    fn growth(&self, name: &str, label: &str, fits: impl Fn(&str) -> bool) -> f64 {
        let sum = |sample: &Sample| {
            sample.sum(name, |labels| match label {
                "" => true,
                label => labels.get(label).is_some_and(|value| fits(value)),
            })
        };
        let (before, after) = (sum(self.before), sum(self.after));
        match after < before {
            true => after,
            false => after - before,
        }
    }

    /// The quantile of what a histogram counted, by linear interpolation within a bucket; none where it counted nothing.
    fn quantile(&self, share: f64, name: &str, is_of_route: impl Fn(&str) -> bool) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let edges = self.after.values(&bucket, "le").into_iter();
        let mut edges: Vec<(f64, &str)> = edges
            .filter_map(|edge| Some((edge.parse().ok()?, edge)))
            .collect();
        edges.sort_by(|one, other| one.0.total_cmp(&other.0));
        let counted = |sample: &Sample, edge: &str| {
            sample.sum(&bucket, |labels| {
                is(labels, "le", edge)
                    && labels.get("route").is_some_and(|route| is_of_route(route))
            })
        };
        let counts = edges.iter().map(|(_, edge)| {
            let (before, after) = (counted(self.before, edge), counted(self.after, edge));
            if after < before {
                after
            } else {
                after - before
            }
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

    fn model(&self, name: &str, state: &str, seconds: f64) -> ModelFigures {
        let of = |metric: &str| self.after.sum_of(metric, "model", name);
        let info = self.after.labels_of("embedgate_model_info", "model", name);
        let runs_on = info.map_or_else(String::new, |labels| {
            let words = ["backend", "device", "precision"];
            let words = words.into_iter().filter_map(|label| labels.get(label));
            words.map(String::as_str).collect::<Vec<_>>().join(" ")
        });
        let tokens = self.growth("embedgate_tokens_total", "model", |model| model == name);
        ModelFigures {
            name: name.to_owned(),
            state: state.to_owned(),
            runs_on,
            tokens_per_second: tokens / seconds,
            waiting: of("embedgate_queue_inputs"),
            memory_mib: of("embedgate_model_memory_bytes") / MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{sample::tests::sample, *};

    /// Figures of a server with some traffic.
    pub(in super::super) fn figures() -> Figures {
        let before = sample(
            "embedgate_requests_total{route=\"/v1/embeddings\",status=\"200\"} 5\n\
             embedgate_tokens_total{model=\"m\"} 100\n",
        );
        let after = sample(
            "embedgate_requests_total{route=\"/v1/embeddings\",status=\"200\"} 15\n\
             embedgate_requests_total{route=\"/metrics\",status=\"200\"} 70\n\
             embedgate_request_duration_seconds_bucket{le=\"0.001\",route=\"/v1/embeddings\"} 0\n\
             embedgate_request_duration_seconds_bucket{le=\"0.003\",route=\"/v1/embeddings\"} 8\n\
             embedgate_request_duration_seconds_bucket{le=\"+Inf\",route=\"/v1/embeddings\"} 10\n\
             embedgate_inputs_total{model=\"m\",result=\"hit\"} 3\n\
             embedgate_inputs_total{model=\"m\",result=\"miss\"} 1\n\
             embedgate_refused_requests_total{reason=\"overloaded\"} 4\n\
             embedgate_queue_inputs{model=\"m\",lane=\"bulk\"} 7\n\
             embedgate_model_info{model=\"m\",backend=\"cpu\",device=\"cpu\",precision=\"int8\"} 1\n\
             embedgate_model_memory_bytes{model=\"m\"} 1048576\n\
             embedgate_tokens_total{model=\"m\"} 300\n",
        );
        Figures::between(&before, &after)
    }

    #[test]
    fn figures_are_what_happened_between_two_looks() {
        let figures = figures();
        // Both looks are of nearly the same moment: rates are compared with each other.
        let share = figures.tokens_per_second / figures.requests_per_second;
        assert!((share - 20.0).abs() < 1e-9, "{share}");
        assert_eq!(figures.hit_percent, Some(75.0));
        assert_eq!(figures.waiting, [0.0, 7.0]);
        assert_eq!(figures.sequences_per_batch, None);
        assert_eq!(figures.refused[0].0, "overloaded");
        // Eight of ten lie between 1 and 3 ms.
        let [median, p95, _] = figures.latency_ms.map(Option::unwrap);
        assert!((median - 2.25).abs() < 1e-9, "{median}");
        assert!((p95 - 3.0).abs() < 1e-9, "{p95}");
        assert_eq!(figures.models[0].runs_on, "cpu cpu int8");
        assert_eq!(figures.models[0].memory_mib, 1.0);
    }

    #[test]
    fn a_server_that_began_anew_counts_from_zero() {
        let before = sample("embedgate_tokens_total{model=\"m\"} 100\n");
        let after = sample("embedgate_tokens_total{model=\"m\"} 30\n");
        let pair = Pair {
            before: &before,
            after: &after,
        };
        assert_eq!(pair.growth("embedgate_tokens_total", "", |_| true), 30.0);
    }
}
