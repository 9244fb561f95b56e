//! Reads keys: a list of tables, or the text of a file with a key a line.

use embedgate_plugin::{Lane, crypto};
use serde_json::Value;

/// One key's hash and what it opens.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// The hash, as hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// None: all models.
    pub(crate) models: Option<Vec<String>>,
    pub(crate) lane: Option<KeyLane>,
    pub(crate) limit: Option<String>,
}

/// A lane, by its name in the settings.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyLane {
    Query,
    Bulk,
}

impl From<KeyLane> for Lane {
    fn from(lane: KeyLane) -> Self {
        match lane {
            KeyLane::Query => Self::Query,
            KeyLane::Bulk => Self::Bulk,
        }
    }
}

/// Reads all keys.
///
/// # Errors
/// Which key is wrong, and why. Hashes are not repeated.
pub(crate) fn read(keys: Value) -> Result<Vec<Key>, String> {
    match keys {
        Value::String(text) => read_text(&text),
        Value::Array(list) => list.into_iter().zip(0..).map(read_table).collect(),
        _ => Err("settings: keys must be a list of tables or a text".to_owned()),
    }
}

fn read_table((table, index): (Value, usize)) -> Result<Key, String> {
    let key: Key = serde_json::from_value(table)
        .map_err(|error| format!("settings: keys[{index}]: {error}"))?;
    check(&key).map_err(|error| format!("settings: keys[{index}]: {error}"))?;
    Ok(key)
}

/// Reads lines of `NAME SHA256 [tenant=T] [scopes=A,B] [models=A,B] [lane=query|bulk] [limit=L]`; what follows ` #` or
/// begins with `#` is for people.
fn read_text(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let words: Vec<&str> = line
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'))
            .collect();
        if words.is_empty() {
            continue;
        }
        keys.push(
            read_words(&words)
                .map_err(|error| format!("settings: keys, line {number}: {error}"))?,
        );
    }
    Ok(keys)
}

fn read_words(words: &[&str]) -> Result<Key, String> {
    let [name, sha256, options @ ..] = words else {
        return Err("a line is NAME SHA256 and then options".to_owned());
    };
    let mut key = Key {
        name: (*name).to_owned(),
        sha256: (*sha256).to_owned(),
        tenant: None,
        scopes: Vec::new(),
        models: None,
        lane: None,
        limit: None,
    };
    for option in options {
        match option.split_once('=') {
            Some(("tenant", value)) => key.tenant = Some(value.to_owned()),
            Some(("scopes", value)) => key.scopes = list(value),
            Some(("models", value)) => key.models = Some(list(value)),
            Some(("lane", "query")) => key.lane = Some(KeyLane::Query),
            Some(("lane", "bulk")) => key.lane = Some(KeyLane::Bulk),
            Some(("limit", value)) => key.limit = Some(value.to_owned()),
            _ => {
                return Err(format!(
                    "unknown option {option}: tenant, scopes, models, lane=query|bulk or limit"
                ));
            }
        }
    }
    check(&key)?;
    Ok(key)
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn check(key: &Key) -> Result<(), String> {
    if !(1..=256).contains(&key.name.len()) || key.name.contains(char::is_control) {
        return Err("a name has 1 to 256 bytes without control characters".to_owned());
    }
    if crypto::digest_from_hex(&key.sha256).is_none() {
        return Err(format!(
            "sha256 of {:?} must be 64 hexadecimal digits",
            key.name
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(keys: impl Into<Value>) -> String {
        read(keys.into()).expect_err("wrong keys")
    }

    #[test]
    fn errors_name_the_key() {
        let hash = "0".repeat(64);
        assert_eq!(
            error(1),
            "settings: keys must be a list of tables or a text"
        );
        assert_eq!(
            error("a"),
            "settings: keys, line 1: a line is NAME SHA256 and then options"
        );
        assert_eq!(
            error("\na b"),
            "settings: keys, line 2: sha256 of \"a\" must be 64 hexadecimal digits"
        );
        assert_eq!(
            error(format!("a {hash} lane=fast")),
            "settings: keys, line 1: unknown option lane=fast: tenant, scopes, models, lane=query|bulk or limit"
        );
        let table = serde_json::json!([{ "name": "", "sha256": hash }]);
        assert_eq!(
            error(table),
            "settings: keys[0]: a name has 1 to 256 bytes without control characters"
        );
        let table = serde_json::json!([{ "name": "a" }]);
        assert_eq!(error(table), "settings: keys[0]: missing field `sha256`");
    }
}
