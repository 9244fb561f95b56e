//! The older text format of Prometheus, for scrapers that do not read `OpenMetrics`.

use std::collections::HashSet;

/// The text format 0.0.4 of Prometheus, made of that of `OpenMetrics` 1.0: counters are called as their samples are, and what only
/// the newer one has is left out.
#[must_use]
pub fn older_text(open_metrics: &str) -> String {
    let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    let counters = open_metrics.lines().filter(|line| is_counter(line));
    let counters: HashSet<&str> = counters.filter_map(|line| line.split(' ').nth(2)).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let suffix = if counters.contains(name) {
                    "_total"
                } else {
                    ""
                };
                text.push_str(&format!("# {kind} {name}{suffix} {rest}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(without_exemplar(line));
                text.push('\n');
            }
        }
    }
    text
}

/// A sample without the exemplar behind its value. Values of labels cannot hold the words: their quotes are written with a backslash.
fn without_exemplar(line: &str) -> &str {
    line.split_once(" # {trace_id=\"")
        .map_or(line, |(sample, _)| sample)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Metrics, *};

    #[test]
    fn the_older_format_names_counters_as_their_samples_and_knows_no_end() {
        let metrics = Metrics::new();
        metrics.request("/", 200, Duration::ZERO, Some("0af7"));
        let text = older_text(&metrics.text());
        assert!(
            text.contains("# TYPE embedgate_requests_total counter\n"),
            "{text}"
        );
        assert!(text.contains("# HELP embedgate_requests_total "), "{text}");
        assert!(text.contains("\nembedgate_requests_total{"), "{text}");
        assert!(text.contains("# TYPE embedgate_request_duration_seconds histogram\n"));
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT") && !text.contains("0af7"),
            "{text}"
        );
    }
}
