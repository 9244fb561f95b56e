//! Reads the tables of a [`Config`] from TOML, with every problem and not only the first.

mod words;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Config, Problem};

/// Parses the syntax. A mistake is said by its place: the line may hold a key.
pub(super) fn table(text: &str) -> Result<Table, Problem> {
    text.parse::<Table>().map_err(|error| {
        let place = error.span().map(|span| place(text, span.start));
        let place = place.unwrap_or_default();
        let message = error.message().trim_end();
        Problem::new("", format!("not valid TOML{place}: {message}"))
    })
}

/// Returns the place of a byte in the text, as ` at line L, column C`, both from 1; columns are characters.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before[start..].chars().count() + 1;
    format!(" at line {line}, column {column}")
}

/// Reads each table on its own; what cannot be read becomes a problem and its default.
pub(super) fn config(mut table: Table, problems: &mut Vec<Problem>) -> Config {
    let mut config = Config {
        default_model: section(&mut table, "default_model", problems),
        unknown_model: section(&mut table, "unknown_model", problems),
        server: section(&mut table, "server", problems),
        log: section(&mut table, "log", problems),
        telemetry: section(&mut table, "telemetry", problems),
        usage: section(&mut table, "usage", problems),
        auth: section(&mut table, "auth", problems),
        cache: section(&mut table, "cache", problems),
        onnxruntime: section(&mut table, "onnxruntime", problems),
        onednn: section(&mut table, "onednn", problems),
        cuda: section(&mut table, "cuda", problems),
        hub: section(&mut table, "hub", problems),
        ..Config::default()
    };
    match table.remove("models") {
        None => {}
        Some(Value::Table(models)) => {
            for (name, value) in models {
                let model = read(&format!("models.{name}"), value, problems);
                config.models.insert(name, model);
            }
        }
        Some(_) => problems.push(Problem::new("models", "must be tables: [models.NAME]")),
    }
    match table.remove("plugins") {
        None => {}
        Some(Value::Table(plugins)) => {
            for (name, value) in plugins {
                let plugin = read(&format!("plugins.{name}"), value, problems);
                config.plugins.insert(name, plugin);
            }
        }
        Some(_) => problems.push(Problem::new("plugins", "must be tables: [plugins.NAME]")),
    }
    for key in table.keys() {
        let known = "default_model, unknown_model, [server], [log], [telemetry], [usage], [auth], [cache], [onnxruntime], [onednn], [cuda], [hub], [models.NAME] and [plugins.NAME]";
        problems.push(Problem::new(
            key,
            format!("is not known, expected one of {known}"),
        ));
    }
    config
}

fn section<T: DeserializeOwned + Default>(
    table: &mut Table,
    key: &str,
    problems: &mut Vec<Problem>,
) -> T {
    table
        .remove(key)
        .map(|value| read(key, value, problems))
        .unwrap_or_default()
}

/// Reads a value; each key that is wrong is reported, taken out, and the rest read again, until nothing is wrong.
pub(super) fn read<T: DeserializeOwned + Default>(
    at: &str,
    mut value: Value,
    problems: &mut Vec<Problem>,
) -> T {
    loop {
        let error = match serde_path_to_error::deserialize(value.clone()) {
            Ok(read) => return read,
            Err(error) => error,
        };
        let message = error.inner().message().trim_end().to_owned();
        let mut path: Vec<String> = error
            .path()
            .iter()
            .map(|segment| segment.to_string())
            .collect();
        let unknown = message
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split('`').next());
        if let Some(unknown) = unknown.filter(|name| path.last().is_none_or(|last| last != name)) {
            path.push(unknown.to_owned());
        }
        let key = path
            .iter()
            .fold(at.to_owned(), |key, part| format!("{key}.{part}"))
            .replace(".[", "[");
        let message = words::in_words(&key, message);
        problems.push(Problem::new(key, message));
        if !remove(&mut value, &path) {
            return T::default();
        }
    }
}

/// Takes out the key that the path leads to; an item of an array takes the whole array with it.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let ([first, rest @ ..], Value::Table(table)) = (path, value) else {
        return false;
    };
    let deeper = rest.first().is_some_and(|next| !next.starts_with('['));
    match table.get_mut(first) {
        Some(inner) if deeper && inner.is_table() => remove(inner, rest),
        _ => table.remove(first).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Environment, *};

    fn problems(text: &str) -> Vec<(String, String)> {
        let problems =
            Config::parse(text, Path::new("/nowhere"), &Environment::default()).unwrap_err();
        problems
            .into_iter()
            .map(|problem| (problem.key, problem.message))
            .collect()
    }

    #[test]
    fn no_problem_repeats_what_may_be_a_secret() {
        let secret = "sk-of-somebody";
        for (text, expected) in [
            (
                format!("[auth]\nkeys = [\"{secret}\"] x"),
                "line 2, column 27",
            ),
            (
                format!("[auth]\nkeys = [\"{secret}\"]\nkeys = [\"{secret}\"]"),
                "line 3",
            ),
            (format!("[auth]\nmode = \"{secret}\""), "must be"),
            (format!("[auth]\nkeys = \"{secret}"), "line 2"),
        ] {
            let all = problems(&text);
            let shown = format!("{all:?}");
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_the_key_and_is_the_only_problem() {
        let auth = |keys: &str| {
            let text = format!("[auth]\nkeys = {keys}\n[models.a]\npath = \"/\"\n");
            problems(&text)
        };
        let cases = [
            (
                r#"[{ key = "long-enough", lane = "fast" }]"#,
                "auth.keys[0].lane",
                "must be `query` or `bulk`",
            ),
            (
                r#"[{ key = "long-enough", nam = "x" }]"#,
                "auth.keys[0].nam",
                "unknown field `nam`",
            ),
            (r#"[{ name = "x" }]"#, "auth.keys[0]", "missing field `key`"),
            (r#""a-secret-key""#, "auth.keys", "must be a list of keys"),
        ];
        for (keys, key, message) in cases {
            let found = auth(keys);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, key);
            assert!(found[0].1.contains(message), "{found:?}");
            assert!(!found[0].1.contains("secret"), "{found:?}");
        }
    }

    #[test]
    fn a_cache_file_that_is_no_file_is_refused() {
        for text in [
            "file = \"a.redb\"",
            "file = { path = \"\" }",
            "file = { path = \"/\" }",
        ] {
            let text =
                format!("[auth]\nmode = \"none\"\n[cache]\n{text}\n[models.a]\npath = \"/\"\n");
            let found = problems(&text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].0.starts_with("cache.file"), "{found:?}");
            assert!(found[0].1.contains("results.redb"), "{found:?}");
        }
    }

    #[test]
    fn settings_of_one_backend_are_refused_with_another() {
        for (backend, key, fitting) in [
            (
                r#"type = "onnx", pin_threads = true"#,
                "pin_threads",
                r#"type = "cpu""#,
            ),
            (
                r#"type = "candle", pin_threads = false"#,
                "pin_threads",
                r#"type = "cpu""#,
            ),
            (
                r#"type = "cpu", file = "a.onnx""#,
                "file",
                r#"type = "onnx""#,
            ),
            (
                r#"type = "candle", precision = "int8""#,
                "precision",
                r#""f32" or "auto""#,
            ),
        ] {
            let text = format!(
                "[auth]\nmode = \"none\"\n[models.a]\npath = \"/\"\nbackend = {{ {backend} }}\n"
            );
            let found = problems(&text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, format!("models.a.backend.{key}"));
            assert!(found[0].1.contains(fitting), "{found:?}");
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_key() {
        let text = r#"
            colour = "red"
            default_model = "gone"
            [server]
            listen = "localhost"
            max_body = "lots"
            max_inputs = -1
            lisen = "127.0.0.1:9100"
            [auth]
            mode = "maybe"
            [models.a]
            path = "x"
            backend = { type = "tensorflow", device = "cpu", threads = "two" }
            [models.b]
            aliases = ["a", 5]
        "#;
        let problems = problems(text);
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let mut expected = [
            "colour",
            "default_model",
            "server.listen",
            "server.max_body",
            "server.max_inputs",
            "server.lisen",
            "auth.mode",
            "models.a.backend.type",
            "models.a.backend.threads",
            "models.a.path",
            "models.b.aliases[1]",
            "models.b.path",
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected, "{problems:#?}");
        let message = |key: &str| problems.iter().find(|(k, _)| k == key).unwrap().1.clone();
        assert!(
            message("server.max_body").contains("512MiB"),
            "{}",
            message("server.max_body")
        );
        assert!(message("models.a.backend.type").contains("`cpu`, `candle`, `onnx`"));
        assert!(message("server.lisen").contains("did you mean `listen`?"));
        let expected = "expected a whole number";
        assert!(
            message("server.max_inputs").ends_with(expected),
            "{}",
            message("server.max_inputs")
        );
        assert!(message("models.a.backend.threads").contains(expected));
    }

    #[test]
    fn what_may_mean_two_things_is_refused_and_names_are_resolved() {
        let text = "[auth]\nmode = \"none\"\n[server]\nmax_body = \"64M\"\nlisten = \"localhost\"\n[models.a]\npath = \"/\"\n";
        let found = problems(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(format!("{found:?}").contains("64M"), "{found:?}");
        assert!(format!("{found:?}").contains("MiB"), "{found:?}");
        assert!(format!("{found:?}").contains("localhost:9100"), "{found:?}");
        let local = crate::address::resolve("localhost:9475").unwrap();
        assert!(local.ip().is_loopback() && local.port() == 9475);
        assert!(crate::address::resolve(":9100").is_err());
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_shown() {
        for text in [
            "[auth]\nkeys = \"the-secret-key\"",
            "[auth]\nkeys = [[\"the-secret-key\"]]",
        ] {
            let problems = problems(text);
            assert!(
                problems.iter().any(|(key, _)| key.starts_with("auth.keys")),
                "{problems:?}"
            );
            assert!(
                !format!("{problems:?}").contains("the-secret"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn broken_toml_says_where() {
        let problems = problems("[server\nlisten = 1");
        assert!(problems[0].1.contains("line 1"), "{problems:?}");
    }
}
