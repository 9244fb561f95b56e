//! A look at a server: its metrics at one moment, read from their text, and the states of its models.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// The labels of a sample, by name.
pub(super) type Labels = BTreeMap<String, String>;

/// The metrics and the states of a moment.
pub struct Sample {
    at: Instant,
    metrics: HashMap<String, Vec<(Labels, f64)>>,
    pub(super) states: States,
}

/// The states of a server and of its models, as `/readyz` says them.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// That of the server, such as `ready`.
    pub server: String,
    /// The name and the state of each model, in their order.
    pub models: Vec<(String, String)>,
}

impl Sample {
    /// Reads the text of `/metrics`, in the format of `OpenMetrics`.
    #[must_use]
    pub fn new(text: &str, states: States, at: Instant) -> Self {
        let mut metrics: HashMap<String, Vec<(Labels, f64)>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, labels, value)) = read(line) {
                let samples = metrics.entry(name.to_owned()).or_default();
                samples.push((labels, value));
            }
        }
        Self {
            at,
            metrics,
            states,
        }
    }

    /// The time since an earlier one.
    pub(super) fn since(&self, earlier: &Self) -> Duration {
        self.at.duration_since(earlier.at)
    }

    /// The sum of a metric's values over the labels that fit.
    pub(super) fn sum(&self, name: &str, fits: impl Fn(&Labels) -> bool) -> f64 {
        let samples = self.metrics.get(name).into_iter().flatten();
        samples
            .filter(|(labels, _)| fits(labels))
            .map(|(_, value)| value)
            .sum()
    }

    /// The values that a label of a metric has, in their order.
    pub(super) fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.metrics.get(name).into_iter().flatten();
        samples
            .filter_map(|(labels, _)| labels.get(label))
            .map(String::as_str)
            .collect()
    }

    /// The labels of the first sample that fits.
    pub(super) fn labels(&self, name: &str, fits: impl Fn(&Labels) -> bool) -> Option<&Labels> {
        let samples = self.metrics.get(name).into_iter().flatten();
        let mut labels = samples.map(|(labels, _)| labels);
        labels.find(|labels| fits(labels))
    }
}

/// Returns true where a label has this value.
pub(super) fn has(labels: &Labels, label: &str, value: &str) -> bool {
    labels.get(label).is_some_and(|found| found == value)
}

/// Reads a line, such as `name{label="value"} 1.5`. What follows behind the value, a time or an exemplar, is left out.
fn read(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while let Some((label, value)) = rest.split_once("=\"") {
            let (value, behind) = quoted(value)?;
            labels.insert(label.trim_start_matches(',').to_owned(), value);
            rest = behind;
            if rest.starts_with('}') {
                break;
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_ascii_whitespace().next()?;
    Some((name, labels, value.parse().ok()?))
}

/// A text up to its quote, and what is behind it; `\n`, `\"` and `\\` are a line, a quote and a backslash.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            (_, other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read_whatever_is_in_them() {
        let text = "# HELP a b\na_total 3\nb{x=\"1\",y=\"say \\\"}\\\" \\\\ and\\n\"} 0.5\n\
                    c_bucket{le=\"+Inf\"} 2 # {trace_id=\"0af7\"} 0.003 1.5\nbroken{x=\"1\nempty\n# EOF\n";
        let sample = Sample::new(text, States::default(), Instant::now());
        assert_eq!(sample.sum("a_total", |_| true), 3.0);
        let labels = sample.labels("b", |labels| has(labels, "x", "1")).unwrap();
        assert_eq!(labels["y"], "say \"}\" \\ and\n");
        let last = sample.sum("c_bucket", |labels| has(labels, "le", "+Inf"));
        assert_eq!(last, 2.0);
        assert_eq!(sample.metrics.len(), 3);
    }
}
