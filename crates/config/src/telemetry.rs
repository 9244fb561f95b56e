//! `[telemetry]`, and the variables of OpenTelemetry that stand for its keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use url::Url;

use super::{Environment, Period, Problem, Secret};

/// More spans than a queue can be meant to hold: about 700 MiB.
const MOST_SPANS: usize = 1_000_000;

/// Where traces go, by OTLP, and of which requests there are some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector, such as `http://localhost:4318` (HTTP) or `http://localhost:4317` (gRPC). None means the variable
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`; without that, too, nothing is traced.
    pub endpoint: Option<String>,
    /// The whole address of traces, taken as it is, in place of `endpoint`. None means the variable
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    pub traces_endpoint: Option<String>,
    /// The protocol that the collector has at this address.
    pub protocol: OtlpProtocol,
    /// Sent with each export, such as `authorization`.
    pub headers: BTreeMap<String, Secret>,
    /// The collector must take an export within this time, tries again included.
    pub timeout: Period,
    /// The share of requests that are traced, 0 to 1.
    pub sample: f64,
    /// True where a caller who sends `traceparent` decides of this request, and `sample` counts for the others alone.
    pub follow_parent: bool,
    /// The name of this service in traces.
    pub service_name: String,
    /// More about this service, such as `deployment.environment.name`.
    pub attributes: BTreeMap<String, String>,
    /// Spans that may wait for the collector; those beyond are dropped and counted.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            let Some(endpoint) = endpoint else {
                continue;
            };
            let is_usable = Url::parse(endpoint).is_ok_and(|url| {
                let has_scheme = matches!(url.scheme(), "http" | "https");
                has_scheme
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
            });
            if !is_usable {
                let message = "must be an address with http:// or https:// and without a password, such as http://localhost:4318; secrets go into telemetry.headers".to_owned();
                say(key, message);
            }
        }
        for (name, value) in &self.headers {
            let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
            if name.is_empty() || !name.bytes().all(is_name) {
                let message = format!("\"{name}\" is no name of a header");
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

/// Sets the keys of `[telemetry]` that the file leaves out, from the variables of OpenTelemetry.
///
/// Source: OpenTelemetry specification 1.50, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
pub(super) fn variables(table: &mut Table, environment: &Environment, problems: &mut Vec<Problem>) {
    let is_off = environment
        .get("OTEL_SDK_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || environment.get("OTEL_TRACES_EXPORTER") == Some("none");
    let telemetry = table
        .entry("telemetry")
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(telemetry) = telemetry else {
        return;
    };
    if is_off {
        telemetry.remove("endpoint");
        telemetry.remove("traces_endpoint");
        return;
    }
    for (key, value) in standard(environment, problems) {
        telemetry.entry(key).or_insert(value);
    }
}

/// The keys that variables set.
fn standard(environment: &Environment, problems: &mut Vec<Problem>) -> Vec<(&'static str, Value)> {
    let of_traces = |name: &str| {
        let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        let all = format!("OTEL_EXPORTER_OTLP_{name}");
        environment.get(&own).or_else(|| environment.get(&all))
    };
    let mut keys = Vec::new();
    let texts = [
        ("endpoint", environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")),
        (
            "traces_endpoint",
            environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ),
        ("protocol", of_traces("PROTOCOL")),
        ("service_name", environment.get("OTEL_SERVICE_NAME")),
    ];
    let set = |(key, text): (&'static str, Option<&str>)| Some((key, Value::from(text?)));
    keys.extend(texts.into_iter().filter_map(set));
    let timeout = of_traces("TIMEOUT").map(|ms| Value::from(format!("{ms}ms")));
    keys.extend(timeout.map(|timeout| ("timeout", timeout)));
    if let Some(pairs) = of_traces("HEADERS") {
        keys.push((
            "headers",
            pairs_of("OTEL_EXPORTER_OTLP_HEADERS", pairs, problems),
        ));
    }
    let resource = environment.get("OTEL_RESOURCE_ATTRIBUTES");
    let mut attributes = resource.map(|all| pairs_of("OTEL_RESOURCE_ATTRIBUTES", all, problems));
    let named = attributes
        .as_mut()
        .and_then(|all| all.as_table_mut()?.remove("service.name"));
    // After the variable of its own, which therefore counts.
    keys.extend(named.map(|name| ("service_name", name)));
    keys.extend(attributes.map(|all| ("attributes", all)));
    sampler(environment, &mut keys, problems);
    keys
}

fn sampler(
    environment: &Environment,
    keys: &mut Vec<(&'static str, Value)>,
    problems: &mut Vec<Problem>,
) {
    let Some(name) = environment.get("OTEL_TRACES_SAMPLER") else {
        return;
    };
    let kind = name.strip_prefix("parentbased_");
    let share = match kind.unwrap_or(name) {
        "always_on" => Ok(1.0),
        "always_off" => Ok(0.0),
        "traceidratio" => {
            let text = environment.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
            let share = text
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share));
            let wrong = format!("must be 0 to 1 for the sampler {name}, got \"{text}\"");
            share.ok_or(("OTEL_TRACES_SAMPLER_ARG", wrong))
        }
        _ => {
            let message = format!(
                "must be always_on, always_off, traceidratio or one of these with parentbased_ in front, got \"{name}\""
            );
            Err(("OTEL_TRACES_SAMPLER", message))
        }
    };
    match share {
        Ok(share) => keys.extend([
            ("sample", Value::from(share)),
            ("follow_parent", Value::from(kind.is_some())),
        ]),
        Err((variable, message)) => problems.push(Problem::new(variable, message)),
    }
}

/// Reads `a=1,b=2`, with `%20` and the like in values.
fn pairs_of(variable: &str, text: &str, problems: &mut Vec<Problem>) -> Value {
    let mut table = Table::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                let value = percent_decoded(value.trim());
                table.insert(name.trim().to_owned(), Value::from(value));
            }
            // The value may be a secret.
            _ => problems.push(Problem::new(
                variable,
                "must be name=value pairs with commas between them",
            )),
        }
    }
    Value::Table(table)
}

fn percent_decoded(text: &str) -> String {
    // As the value of a query, where a plus would be a space.
    let query = text.replace('+', "%2B").replace('&', "%26");
    let pair = format!("v={query}");
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    pairs
        .next()
        .map_or_else(|| text.to_owned(), |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Config, *};

    /// A folder is all that a model needs here.
    const MODEL: &str = concat!(
        "auth.mode = \"none\"\n[models.m]\npath = \"",
        env!("CARGO_MANIFEST_DIR"),
        "\"\n"
    );

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<TelemetryConfig, Vec<String>> {
        let environment = variables.iter().copied().collect();
        let text = format!("{MODEL}{text}");
        let config = Config::parse(&text, Path::new("/nowhere"), &environment);
        let shown = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        config.map(|config| config.telemetry).map_err(shown)
    }

    #[test]
    fn variables_set_what_the_file_leaves_out() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20a+b,x-tenant=one",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=rag,deployment.environment.name=test",
            ),
        ];
        let config = read("", &variables).unwrap();
        assert_eq!(config.target().unwrap(), "http://collector:4318/v1/traces");
        assert_eq!(config.headers["authorization"].expose(), "Bearer a+b");
        assert_eq!(config.timeout.0, std::time::Duration::from_millis(2500));
        assert_eq!((config.sample, config.follow_parent), (0.25, true));
        assert_eq!(config.service_name, "rag");
        assert_eq!(config.attributes["deployment.environment.name"], "test");
        let own = "[telemetry]\nendpoint = \"http://own:4318\"\nsample = 1.0\n";
        let config = read(own, &variables).unwrap();
        assert_eq!(config.target().unwrap(), "http://own:4318/v1/traces");
        assert_eq!(config.sample, 1.0);
    }

    #[test]
    fn tracing_is_off_where_nothing_or_a_variable_says_so() {
        assert_eq!(read("", &[]).unwrap(), TelemetryConfig::default());
        let own = "[telemetry]\nendpoint = \"http://own:4318\"\n";
        for variable in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(read(own, &[variable]).unwrap().target(), None);
        }
    }

    #[test]
    fn an_address_of_grpc_has_no_path_added() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        let config = read("", &variables).unwrap();
        assert_eq!(config.protocol, OtlpProtocol::Grpc);
        assert_eq!(config.target().unwrap(), "http://collector:4317");
        let variable = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://collector/as-it-is",
        );
        let config = read("", &[variable]).unwrap();
        assert_eq!(config.target().unwrap(), "http://collector/as-it-is");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("sample = 2.0", vec![], "telemetry.sample"),
            (
                "endpoint = \"collector:4318\"",
                vec![],
                "such as http://localhost:4318",
            ),
            ("max_queue = 0", vec![], "telemetry.max_queue"),
            ("protocol = \"http/json\"", vec![], "telemetry.protocol"),
            (
                "headers = { \"a b\" = \"c\" }",
                vec![],
                "no name of a header",
            ),
            (
                "",
                vec![("OTEL_TRACES_SAMPLER", "jaeger_remote")],
                "OTEL_TRACES_SAMPLER",
            ),
            (
                "",
                vec![
                    ("OTEL_TRACES_SAMPLER", "traceidratio"),
                    ("OTEL_TRACES_SAMPLER_ARG", "half"),
                ],
                "OTEL_TRACES_SAMPLER_ARG",
            ),
            (
                "",
                vec![("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")],
                "name=value",
            ),
        ];
        for (keys, variables, expected) in cases {
            let problems = read(&format!("[telemetry]\n{keys}\n"), &variables).unwrap_err();
            assert!(problems[0].contains(expected), "{problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
    }
}
