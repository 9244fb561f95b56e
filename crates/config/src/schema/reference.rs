//! The reference of all keys, as Markdown: a section for each table, a row for each key.

use serde_json::{Map, Value};

const INTRODUCTION: &str = "\
# All keys

`embedgate schema --format markdown` prints this page, from the types that read the configuration. [configuration.md](configuration.md) says
how a file is found, and what variables do. [config/embedgate.toml](../config/embedgate.toml) has the same keys as a file to copy from.

Your editor can complete and check keys, where it has a plugin for TOML that knows JSON Schema (Even Better TOML, or any with taplo): write
`#:schema config.schema.json` on the first line of the file, and beside it the output of `embedgate schema > config.schema.json`.
";

/// A table, as a section of the page.
struct Section<'a> {
    /// As in TOML, such as `[models.NAME]`.
    title: String,
    /// Before its keys, such as `models.NAME`.
    path: String,
    /// A sentence about it.
    sentence: &'a str,
    schema: &'a Value,
    /// The values that its parent gives its keys where they are left out.
    defaults: Option<&'a Map<String, Value>>,
}

/// Writes the reference of a schema.
pub(super) fn of(root: &Value) -> String {
    let mut text = String::from(INTRODUCTION);
    let top = Section {
        title: "At the top".into(),
        path: String::new(),
        sentence: "Keys that are no tables stand before the first table. Where a default is empty, the key has none.",
        schema: root,
        defaults: None,
    };
    write_section(root, &top, &mut text);
    text
}

/// Writes the keys of a table, and then the tables in it.
fn write_section(root: &Value, section: &Section<'_>, text: &mut String) {
    let mut tables = Vec::new();
    let mut rows = String::new();
    let keys = section.schema.get("properties").and_then(Value::as_object);
    for (key, value) in keys.into_iter().flatten() {
        let default = value.get("default");
        let default = default.or_else(|| section.defaults?.get(key));
        let path = match section.path.as_str() {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        let table = table_of(root, value, path);
        // The keys of a table show their own defaults.
        let shown = default.filter(|_| table.as_ref().is_none_or(|table| !table.is_all));
        rows += &row(root, section, key, value, shown);
        tables.extend(table.map(|table| Section {
            sentence: sentence_of(if table.is_all { value } else { table.schema }),
            title: table.title(),
            path: table.path,
            schema: table.schema,
            defaults: default.and_then(Value::as_object),
        }));
    }
    *text += &format!("\n## {}\n\n{}\n", section.title, section.sentence);
    *text += "\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n";
    *text += &rows;
    for table in &tables {
        write_section(root, table, text);
    }
}

/// The row of a key.
fn row(
    root: &Value,
    section: &Section<'_>,
    key: &str,
    value: &Value,
    default: Option<&Value>,
) -> String {
    let needed = section.schema.get("required").and_then(Value::as_array);
    let is_needed = needed.is_some_and(|needed| needed.iter().any(|name| name == key));
    let default = match is_needed {
        true => "needed".into(),
        false => shown(default),
    };
    let (kind, sentence) = (kind_of(root, value), sentence_of(value));
    let [kind, default, sentence] =
        [&*kind, &*default, sentence].map(|text| text.replace('|', "\\|"));
    format!("| `{key}` | {kind} | {default} | {sentence} |\n")
}

/// A table that a key leads to.
struct Table<'a> {
    path: String,
    schema: &'a Value,
    /// True where the key can be nothing else.
    is_all: bool,
    /// True where the key is a list.
    is_listed: bool,
}

impl Table<'_> {
    fn title(&self) -> String {
        let path = &self.path;
        match (self.is_all, self.is_listed) {
            (true, _) => format!("`[{path}]`"),
            (false, true) => format!("One of `{path}` as a table"),
            (false, false) => format!("`{path}` as a table"),
        }
    }
}

/// The table that a key leads to, where it does.
fn table_of<'a>(root: &'a Value, value: &'a Value, path: String) -> Option<Table<'a>> {
    let choices = choices(root, value);
    for choice in &choices {
        if choice.get("properties").is_some() {
            return Some(Table {
                path,
                schema: choice,
                is_all: choices.len() == 1,
                is_listed: false,
            });
        }
        if let Some(inner @ Value::Object(_)) = choice.get("additionalProperties") {
            return table_of(root, inner, format!("{path}.NAME"));
        }
        if let Some(inner) = choice.get("items") {
            let table = table_of(root, inner, path)?;
            return Some(Table {
                is_listed: true,
                ..table
            });
        }
    }
    None
}

/// The choices for a value: itself, or what it refers to.
fn choices<'a>(root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    if let Some(path) = value.get("$ref").and_then(Value::as_str) {
        let found = root.pointer(path.trim_start_matches('#'));
        return found.map(|found| choices(root, found)).unwrap_or_default();
    }
    let several = ["allOf", "anyOf", "oneOf"];
    let several = several.iter().find_map(|word| value.get(word)?.as_array());
    match several {
        // That a word may be a variable is true of every text.
        Some(all) => {
            let own = all.iter().filter(|one| one.get("pattern").is_none());
            own.flat_map(|one| choices(root, one)).collect()
        }
        None => vec![value],
    }
}

/// A value's kind in words.
fn kind_of(root: &Value, value: &Value) -> String {
    if let Some(kind) = named_kind(value) {
        return kind.to_owned();
    }
    let mut kinds: Vec<String> = Vec::new();
    for choice in choices(root, value) {
        let kind = single_kind(root, choice);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let is_word = |kind: &String| kind.starts_with('`');
    kinds.join(if kinds.iter().all(is_word) {
        ", "
    } else {
        " or "
    })
}

/// The kind of a value that refers to a type with a unit.
fn named_kind(value: &Value) -> Option<&'static str> {
    let inner = value.get("allOf").and_then(|all| all.get(0));
    let path = inner.unwrap_or(value).get("$ref")?.as_str()?;
    match path.rsplit('/').next()? {
        "Period" => Some("time: `\"200ms\"`, `\"30s\"`, `\"24h\"`"),
        "ByteSize" => Some("size: `\"64MiB\"`, `\"2GB\"`"),
        "FileMode" => Some("mode: `\"0660\"`"),
        "Timestamp" => Some("date or time"),
        _ => None,
    }
}

fn single_kind(root: &Value, choice: &Value) -> String {
    if let Some(word) = choice.get("const") {
        return code(word);
    }
    if let Some(words) = choice.get("enum").and_then(Value::as_array) {
        return words.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    let least = choice.get("minimum").and_then(Value::as_i64);
    match choice.get("type").and_then(Value::as_str) {
        Some("string") => "text".into(),
        Some("boolean") => "`true`, `false`".into(),
        Some("number") => "number".into(),
        Some("integer") if least == Some(1) => "whole number, at least 1".into(),
        Some("integer") => "whole number".into(),
        Some("array") => {
            let items = choice.get("items").map(|inner| kind_of(root, inner));
            format!("list of {}", items.unwrap_or_else(|| "values".into()))
        }
        Some("object") if choice.get("properties").is_some() => "table (below)".into(),
        Some("object") => match choice.get("additionalProperties") {
            Some(inner @ Value::Object(_)) => match kind_of(root, inner).as_str() {
                "table (below)" => "tables by name (below)".into(),
                kind => format!("table of names and {kind}"),
            },
            _ => "table".into(),
        },
        _ => "any value".into(),
    }
}

fn sentence_of(value: &Value) -> &str {
    value
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A default as it is written in TOML.
fn shown(default: Option<&Value>) -> String {
    match default {
        None => String::new(),
        Some(Value::Object(table)) if table.is_empty() => "`{}`".into(),
        Some(Value::Object(table)) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            format!("`{{ {} }}`", pairs.join(", "))
        }
        Some(other) => code(other),
    }
}

fn code(value: &Value) -> String {
    format!("`{value}`")
}
