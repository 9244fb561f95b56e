//! `${VAR}` in strings, and overrides by `EMBEDGATE_*` variables.

use toml::{Table, Value};

use super::{ConfigError, Environment, Problem};

/// Replaces `${VAR}` in every string; `$${` stands for a plain `${`.
pub(super) fn variables(table: &mut Table, environment: &Environment, problems: &mut Vec<Problem>) {
    for (key, value) in table.iter_mut() {
        expand(key, value, environment, problems);
    }
}

fn expand(path: &str, value: &mut Value, environment: &Environment, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) => match expanded(text, environment) {
            Ok(new) => *text = new,
            Err(message) => problems.push(Problem::new(path, message)),
        },
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                expand(&format!("{path}[{i}]"), item, environment, problems);
            }
        }
        Value::Table(table) => {
            for (key, item) in table.iter_mut() {
                expand(&format!("{path}.{key}"), item, environment, problems);
            }
        }
        _ => {}
    }
}

fn expanded(text: &str, environment: &Environment) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..]
            .split_once('}')
            .ok_or("${ without }: write ${NAME}, or $${ for a plain ${")?;
        let value = environment.get(name);
        out.push_str(
            value.ok_or_else(|| format!("the environment variable {name} is not set, or empty"))?,
        );
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

impl Environment {
    /// Puts variables in the place of `${VAR}`.
    ///
    /// # Errors
    /// When one is not set.
    pub fn expand(&self, text: &str) -> Result<String, ConfigError> {
        let mut table = toml::Table::from_iter([("text".to_owned(), toml::Value::from(text))]);
        let mut problems = Vec::new();
        variables(&mut table, self, &mut problems);
        match table.remove("text") {
            Some(toml::Value::String(text)) if problems.is_empty() => Ok(text),
            _ => Err(ConfigError {
                file: None,
                problems,
            }),
        }
    }
}

/// Sets keys from the environment: `EMBEDGATE_SERVER__MAX_BODY=64MiB` is `server.max_body = "64MiB"`; `__` stands for
/// the dot. `EMBEDGATE_LISTEN` is short for `EMBEDGATE_SERVER__LISTEN`. Empty variables and others, such as keys, are left
/// alone.
pub(super) fn overrides(table: &mut Table, environment: &Environment, problems: &mut Vec<Problem>) {
    let short = [
        ("EMBEDGATE_LISTEN", &["server", "listen"][..]),
        ("EMBEDGATE_DEFAULT_MODEL", &["default_model"]),
    ];
    for (name, path) in short {
        if let Some(text) = environment.get(name) {
            set(table, path, Value::String(text.into()))
                .unwrap_or_else(|problem| problems.push(problem));
        }
    }
    for (name, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let Some(path) = name
            .strip_prefix("EMBEDGATE_")
            .filter(|path| path.contains("__"))
        else {
            continue;
        };
        let path = path.to_lowercase();
        let parts: Vec<&str> = path.split("__").collect();
        set(table, &parts, value(text)).unwrap_or_else(|problem| problems.push(problem));
    }
}

/// A value as TOML would read it, else a string: `8`, `true` and `["a"]` need no quotes, `64MiB` gets them.
fn value(text: &str) -> Value {
    let parsed = format!("x = {text}").parse::<Table>().ok();
    parsed
        .and_then(|mut table| table.remove("x"))
        .unwrap_or_else(|| Value::String(text.into()))
}

fn set(table: &mut Table, path: &[&str], value: Value) -> Result<(), Problem> {
    let [first, rest @ ..] = path else {
        return Ok(());
    };
    // Names of models may have capitals, dashes and dots, which variables lack: an existing key that differs only so is meant.
    let same = |key: &&String| key.to_lowercase().replace(['-', '.', '/'], "_") == *first;
    let key = table
        .keys()
        .find(same)
        .cloned()
        .unwrap_or_else(|| (*first).to_owned());
    if rest.is_empty() {
        table.insert(key, value);
        return Ok(());
    }
    match table
        .entry(key.clone())
        .or_insert_with(|| Value::Table(Table::new()))
    {
        Value::Table(inner) => set(inner, rest, value),
        _ => Err(Problem::new(
            key,
            "is not a table, but the environment sets a key in it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_in_every_string() {
        let mut table: Table = "a = \"${X}-${X}\"\nb = [\"$${X}\"]\n[c]\nd = \"no $ {X}\""
            .parse()
            .unwrap();
        let mut problems = Vec::new();
        variables(&mut table, &Environment::from([("X", "1")]), &mut problems);
        assert_eq!(problems, []);
        assert_eq!(
            table.to_string(),
            "a = \"1-1\"\nb = [\"${X}\"]\n\n[c]\nd = \"no $ {X}\"\n"
        );
    }

    #[test]
    fn a_missing_variable_is_named_with_its_key() {
        let mut table: Table = "[auth]\nkeys = [\"a\", \"${NO_SUCH}\", \"${open\"]"
            .parse()
            .unwrap();
        let mut problems = Vec::new();
        variables(&mut table, &Environment::default(), &mut problems);
        let expected = [
            Problem::new(
                "auth.keys[1]",
                "the environment variable NO_SUCH is not set, or empty",
            ),
            Problem::new(
                "auth.keys[2]",
                "${ without }: write ${NAME}, or $${ for a plain ${",
            ),
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn overrides_reach_every_key_and_leave_other_variables_alone() {
        let mut table: Table = "[models.bge-m3-Local]\npath = \"x\"".parse().unwrap();
        let environment = Environment::from([
            ("EMBEDGATE_LISTEN", "0.0.0.0:1"),
            ("EMBEDGATE_KEY", "secret"),
            ("EMBEDGATE_SERVER__MAX_INPUTS", ""),
            ("EMBEDGATE_DEFAULT_MODEL", "2024"),
            ("EMBEDGATE_SERVER__MAX_BODY", "64MiB"),
            ("EMBEDGATE_MODELS__BGE_M3_LOCAL__BACKEND__THREADS", "2"),
        ]);
        let mut problems = Vec::new();
        overrides(&mut table, &environment, &mut problems);
        assert_eq!(problems, []);
        assert_eq!(table["server"]["listen"].as_str(), Some("0.0.0.0:1"));
        assert_eq!(table["server"]["max_body"].as_str(), Some("64MiB"));
        assert_eq!(
            table["models"]["bge-m3-Local"]["backend"]["threads"].as_integer(),
            Some(2)
        );
        assert_eq!(table["default_model"].as_str(), Some("2024"));
        assert!(table["server"].get("max_inputs").is_none());
        assert_eq!(table.len(), 3);
    }
}
