//! The variables of OpenTelemetry that stand for keys of `[telemetry]`.

use toml::{Table, Value};

use crate::{Environment, Problem};

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
    for (key, value) in standard(environment, problems) {
        telemetry.entry(key).or_insert(value);
    }
}

/// The keys that variables set.
fn standard(environment: &Environment, problems: &mut Vec<Problem>) -> Vec<(&'static str, Value)> {
    // The variable for traces, else the one for all signals.
    let of_traces = |name: &str| {
        let both = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
        let both = both.map(|start| format!("{start}{name}"));
        both.into_iter().find_map(|variable| {
            let value = environment.get(&variable)?;
            Some((variable, value))
        })
    };
    let mut keys = Vec::new();
    let texts = [
        ("endpoint", environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")),
        (
            "traces_endpoint",
            environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ),
        ("service_name", environment.get("OTEL_SERVICE_NAME")),
    ];
    let set = |(key, text): (&'static str, Option<&str>)| Some((key, Value::from(text?)));
    keys.extend(texts.into_iter().filter_map(set));
    if let Some((variable, protocol)) = of_traces("PROTOCOL") {
        match protocol {
            "http/protobuf" | "grpc" => keys.push(("protocol", Value::from(protocol))),
            _ => {
                let message = format!("must be http/protobuf or grpc, got \"{protocol}\"");
                problems.push(Problem::new(variable, message));
            }
        }
    }
    if let Some((variable, ms)) = of_traces("TIMEOUT") {
        match ms.parse::<u64>() {
            Ok(ms) => keys.push(("timeout", Value::from(format!("{ms}ms")))),
            Err(_) => {
                let message = format!("must be a number of milliseconds, got \"{ms}\"");
                problems.push(Problem::new(variable, message));
            }
        }
    }
    if let Some((variable, pairs)) = of_traces("HEADERS") {
        keys.push(("headers", pairs_of(&variable, pairs, problems)));
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
    use super::super::{OtlpProtocol, TelemetryConfig, tests::read};

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
}
