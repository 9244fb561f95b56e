//! `[telemetry]`.

mod variables;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

pub(super) use self::variables::variables;
use super::{Period, Problem, Secret};

/// More spans than a queue can be meant to hold: about 700 MiB.
const MOST_SPANS: usize = 1_000_000;

/// Where traces go, by OTLP, and of which requests there are some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector, such as `"http://localhost:4318"` (HTTP) or `"http://localhost:4317"` (gRPC). Without it: the
    /// variable `OTEL_EXPORTER_OTLP_ENDPOINT`; without that and `traces_endpoint` nothing is traced.
    pub endpoint: Option<String>,
    /// The whole address of traces, taken as it is, in place of endpoint. Without it: the variable
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else endpoint counts.
    pub traces_endpoint: Option<String>,
    /// `"http/protobuf"` (which adds `/v1/traces` to endpoint) or `"grpc"`.
    pub protocol: OtlpProtocol,
    /// Sent with each export, such as `{ authorization = "Bearer ${TOKEN}" }`.
    pub headers: BTreeMap<String, Secret>,
    /// The collector must take an export within this time, tries again included; what it does not take is dropped and
    /// counted.
    pub timeout: Period,
    /// The share of requests that are traced, 0 to 1.
    pub sample: f64,
    /// True where a caller who sends traceparent decides of this request; sample counts for the others.
    pub follow_parent: bool,
    /// The name of this service in traces.
    pub service_name: String,
    /// More about this service, such as `{ "deployment.environment.name" = "test" }`.
    pub attributes: BTreeMap<String, String>,
    /// Spans that may wait for the collector; those beyond are dropped and counted. A request has about eight.
    pub max_queue: usize,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            protocol: OtlpProtocol::Http,
            headers: BTreeMap::new(),
            timeout: Period::seconds(10),
            sample: 1.0,
            follow_parent: true,
            service_name: "embedgate".into(),
            attributes: BTreeMap::new(),
            max_queue: 32_768,
        }
    }
}

/// A protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpProtocol {
    /// Protocol buffers over HTTP; `/v1/traces` is added to `endpoint`.
    #[serde(rename = "http/protobuf")]
    Http,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

impl TelemetryConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let mut say = |key: &str, message: String| {
            problems.push(Problem::new(format!("telemetry.{key}"), message));
        };
        if !(0.0..=1.0).contains(&self.sample) {
            say("sample", format!("must be 0 to 1, got {}", self.sample));
        }
        if !(1..=MOST_SPANS).contains(&self.max_queue) {
            let message = format!("must be 1 to {MOST_SPANS}, got {}", self.max_queue);
            say("max_queue", message);
        }
        for (key, endpoint) in [
            ("endpoint", &self.endpoint),
            ("traces_endpoint", &self.traces_endpoint),
        ] {
            if let Some(message) = endpoint.as_deref().and_then(endpoint_problem) {
                say(key, message);
            }
        }
        for (name, value) in &self.headers {
            if let Some(message) = header_problem(name) {
                say("headers", message);
            }
            if value.expose().bytes().any(|c| !matches!(c, b' '..=b'~')) {
                let message = "its value must be visible ASCII characters".to_owned();
                say(&format!("headers.{name}"), message);
            }
        }
        if let Some(message) = self.timeout.out_of_range() {
            say("timeout", message);
        }
    }

    /// The address that spans are sent to.
    #[must_use]
    pub fn target(&self) -> Option<String> {
        let base = |endpoint: &String| match self.protocol {
            OtlpProtocol::Http => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            OtlpProtocol::Grpc => endpoint.clone(),
        };
        let own = self.traces_endpoint.clone();
        own.or_else(|| self.endpoint.as_ref().map(base))
    }
}

/// Says what is wrong with the address of a collector; none where nothing is.
fn endpoint_problem(endpoint: &str) -> Option<String> {
    let is_usable = Url::parse(endpoint).is_ok_and(|url| {
        let has_scheme = matches!(url.scheme(), "http" | "https");
        has_scheme && url.has_host() && url.username().is_empty() && url.password().is_none()
    });
    let message = "must be an address with http:// or https:// and without a password, such as http://localhost:4318; secrets go into telemetry.headers";
    (!is_usable).then(|| message.to_owned())
}

/// Says what is wrong with the name of a header; none where nothing is.
fn header_problem(name: &str) -> Option<String> {
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let is_right = !name.is_empty() && name.bytes().all(is_name);
    (!is_right).then(|| format!("\"{name}\" is no name of a header"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::{super::Config, *};

    /// A folder is all that a model needs here.
    const MODEL: &str = concat!(
        "auth.mode = \"none\"\n[models.m]\npath = \"",
        env!("CARGO_MANIFEST_DIR"),
        "\"\n"
    );

    pub(super) fn read(
        text: &str,
        variables: &[(&str, &str)],
    ) -> Result<TelemetryConfig, Vec<String>> {
        let environment = variables.iter().copied().collect();
        let text = format!("{MODEL}{text}");
        let config = Config::parse(&text, Path::new("/nowhere"), &environment);
        let shown = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        config.map(|config| config.telemetry).map_err(shown)
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("sample = 2.0", "telemetry.sample"),
            (
                "endpoint = \"collector:4318\"",
                "such as http://localhost:4318",
            ),
            ("max_queue = 0", "telemetry.max_queue"),
            ("protocol = \"http/json\"", "telemetry.protocol"),
            ("headers = { \"a b\" = \"c\" }", "no name of a header"),
        ];
        for (keys, expected) in cases {
            let problems = read(&format!("[telemetry]\n{keys}\n"), &[]).unwrap_err();
            assert!(problems[0].contains(expected), "{problems:?}");
        }
    }
}
