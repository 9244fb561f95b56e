//! The variables of OpenTelemetry that stand for keys of `[telemetry]`.

use toml::{Table, Value};

use super::{OtlpProtocol, endpoint_problem, header_problem};
use crate::{Environment, Period, Problem};

/// Sets the keys of `[telemetry]` that the file leaves out, from the variables of OpenTelemetry.
///
/// Source: OpenTelemetry specification 1.50, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
pub(in super::super) fn variables(
    table: &mut Table,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) {
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
    for said in said_by(environment) {
        // A variable whose key is in the file counts for nothing, right or wrong.
        if telemetry.contains_key(said.key) {
            continue;
        }
        match said.value {
            Ok(value) => {
                telemetry.insert(said.key.into(), value);
            }
            Err(message) => problems.push(Problem::new(said.variable, message)),
        }
    }
}

/// The word of a variable on a key: its value, or the problem with it.
struct Said {
    key: &'static str,
    variable: &'static str,
    value: Result<Value, String>,
}

impl Said {
    fn new(key: &'static str, variable: &'static str, value: Result<Value, String>) -> Self {
        Self {
            key,
            variable,
            value,
        }
    }
}

/// Reads all variables. Of two for one key the first counts.
fn said_by(environment: &Environment) -> Vec<Said> {
    let said = |key, variables: &[&'static str], read: fn(&str) -> Result<Value, String>| {
        let mut variables = variables.iter();
        variables
            .find_map(|variable| Some(Said::new(key, variable, read(environment.get(variable)?))))
    };
    let traces_headers = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    let traces_protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
    let traces_timeout = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
    let single = [
        said("endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"], endpoint),
        said(
            "traces_endpoint",
            &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
            endpoint,
        ),
        said(
            "protocol",
            &[traces_protocol, "OTEL_EXPORTER_OTLP_PROTOCOL"],
            protocol,
        ),
        said(
            "timeout",
            &[traces_timeout, "OTEL_EXPORTER_OTLP_TIMEOUT"],
            timeout,
        ),
        said(
            "headers",
            &[traces_headers, "OTEL_EXPORTER_OTLP_HEADERS"],
            headers,
        ),
        said("service_name", &["OTEL_SERVICE_NAME"], |name| {
            Ok(name.into())
        }),
    ];
    let mut all: Vec<Said> = single.into_iter().flatten().collect();
    all.extend(resource(environment));
    all.extend(sampler(environment));
    all
}

fn endpoint(text: &str) -> Result<Value, String> {
    match endpoint_problem(text) {
        None => Ok(text.into()),
        Some(problem) => Err(problem),
    }
}

fn protocol(text: &str) -> Result<Value, String> {
    let value = Value::from(text);
    let known = value.clone().try_into::<OtlpProtocol>();
    known
        .map(|_| value)
        .map_err(|_| format!("must be http/protobuf or grpc, got \"{text}\""))
}

/// In milliseconds.
fn timeout(text: &str) -> Result<Value, String> {
    let wrong = format!("must be a number of milliseconds, got \"{text}\"");
    let ms = text.parse().map_err(|_| wrong)?;
    let period = Period::milliseconds(ms);
    match period.out_of_range() {
        None => Ok(period.to_string().into()),
        Some(problem) => Err(problem),
    }
}

fn headers(text: &str) -> Result<Value, String> {
    let pairs = pairs_of(text)?;
    let problem = pairs.keys().find_map(|name| header_problem(name));
    problem.map_or(Ok(pairs.into()), Err)
}

/// The attributes of the service, and its name among them, which counts after the variable of its own.
fn resource(environment: &Environment) -> Vec<Said> {
    let variable = "OTEL_RESOURCE_ATTRIBUTES";
    let Some(text) = environment.get(variable) else {
        return Vec::new();
    };
    let said = |key, value| Said::new(key, variable, value);
    match pairs_of(text) {
        Err(problem) => vec![said("attributes", Err(problem))],
        Ok(mut pairs) => {
            let name = pairs.remove("service.name");
            let name = name.map(|name| said("service_name", Ok(name)));
            let attributes = said("attributes", Ok(pairs.into()));
            name.into_iter().chain([attributes]).collect()
        }
    }
}

fn sampler(environment: &Environment) -> Vec<Said> {
    let variable = "OTEL_TRACES_SAMPLER";
    let Some(name) = environment.get(variable) else {
        return Vec::new();
    };
    let kind = name.strip_prefix("parentbased_");
    let (from, share) = match kind.unwrap_or(name) {
        "always_on" => (variable, Ok(1.0)),
        "always_off" => (variable, Ok(0.0)),
        "traceidratio" => {
            let from = "OTEL_TRACES_SAMPLER_ARG";
            let text = environment.get(from).unwrap_or("1");
            let share = text.parse().ok();
            let share = share.filter(|share| (0.0..=1.0).contains(share));
            let wrong = || format!("must be 0 to 1 for the sampler {name}, got \"{text}\"");
            (from, share.ok_or_else(wrong))
        }
        _ => {
            let message = format!(
                "must be always_on, always_off, traceidratio or one of these with parentbased_ in front, got \"{name}\""
            );
            (variable, Err(message))
        }
    };
    vec![
        Said::new("sample", from, share.map(Value::from)),
        Said::new("follow_parent", variable, Ok(kind.is_some().into())),
    ]
}

/// Reads `a=1,b=2`, with `%20` and the like in values.
fn pairs_of(text: &str) -> Result<Table, String> {
    let pairs = text.split(',').map(str::trim);
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = Some(name.trim()).filter(|name| !name.is_empty())?;
        Some((name.to_owned(), percent_decoded(value.trim()).into()))
    });
    let pairs: Option<Table> = pairs.collect();
    // The value may be a secret.
    pairs.ok_or_else(|| "must be name=value pairs with commas between them".into())
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
    use super::{
        super::{TelemetryConfig, tests::read},
        *,
    };

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
    fn a_variable_that_is_wrong_is_named_without_its_secret() {
        let arguments = |argument| {
            vec![
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]
        };
        let cases = [
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")],
                "OTEL_EXPORTER_OTLP_ENDPOINT: must be an address",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2")],
                "OTEL_EXPORTER_OTLP_HEADERS: \"a b\" is no name",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_TIMEOUT", "0")],
                "OTEL_EXPORTER_OTLP_TIMEOUT: 0s is out of range",
            ),
            (
                vec![("OTEL_TRACES_SAMPLER", "jaeger_remote")],
                "OTEL_TRACES_SAMPLER",
            ),
            (arguments("half"), "OTEL_TRACES_SAMPLER_ARG"),
            (
                vec![("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")],
                "OTEL_EXPORTER_OTLP_HEADERS: must be name=value",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")],
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: must be http/protobuf or grpc",
            ),
            (
                vec![("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
                "OTEL_EXPORTER_OTLP_TIMEOUT: must be a number of milliseconds",
            ),
        ];
        for (variables, expected) in cases {
            let problems = read("", &variables).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(expected), "{problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn a_key_in_the_file_wins_over_a_variable_that_is_wrong() {
        let own = "[telemetry]\nprotocol = \"grpc\"\nsample = 0.5\ntimeout = \"3s\"\n";
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ];
        let config = read(own, &variables).unwrap();
        assert_eq!((config.protocol, config.sample), (OtlpProtocol::Grpc, 0.5));
    }
}
