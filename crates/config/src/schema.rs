//! The JSON Schema of the configuration, made of its types: for editors, and for the reference in `reference.rs`.
//!
//! It says what can be written. What must fit together, such as a limit that a key names, is for `check.rs`.

mod reference;

use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform},
};
use serde_json::{Value, json};

use crate::Config;

/// A text that takes a variable of the environment.
const VARIABLE: &str = r"\$\{";

impl Config {
    /// Returns the JSON Schema (draft 7, which editors know) of a configuration file.
    #[must_use]
    pub fn schema() -> Value {
        let settings = SchemaSettings::draft07();
        let mut schema = settings.into_generator().into_root_schema_for::<Self>();
        RecursiveTransform(without_null).transform(&mut schema);
        RecursiveTransform(on_one_line).transform(&mut schema);
        let mut schema = schema.into();
        take_variables(&mut schema);
        schema
    }

    /// Returns the reference of all keys, as Markdown.
    #[must_use]
    pub fn reference() -> String {
        reference::of(&Self::schema())
    }
}

/// TOML has no null: a key that may be left out has its type, and no default.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(default) = object.get_mut("default") {
        remove_nulls(default);
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    let is_null = |one: &Value| one.get("type").is_some_and(|name| name == "null");
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else {
        return;
    };
    choices.retain(|one| !is_null(one));
    if let [only] = choices.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        // In draft 7 nothing counts beside a reference.
        object.insert("allOf".into(), Value::Array(vec![only]));
    }
}

fn remove_nulls(value: &mut Value) {
    if let Value::Object(table) = value {
        table.retain(|_, value| !value.is_null());
        table.values_mut().for_each(remove_nulls);
    }
}

/// Lets words of a list be `${VARIABLE}`, too, which is replaced before they are read. Other texts may be anything already.
fn take_variables(schema: &mut Value) {
    let definitions = schema.get_mut("definitions").and_then(Value::as_object_mut);
    for definition in definitions.into_iter().flat_map(|all| all.values_mut()) {
        let is_word = |one: &Value| one.get("const").is_some();
        let words = definition.get("oneOf").and_then(Value::as_array);
        let is_list = words.is_some_and(|words| words.iter().all(is_word));
        if !is_list && definition.get("enum").is_none() {
            continue;
        }
        let words = definition.take();
        let description = words.get("description").cloned();
        let variable = json!({ "type": "string", "pattern": VARIABLE });
        *definition = json!({ "anyOf": [words, variable] });
        if let Some(description) = description {
            definition["description"] = description;
        }
    }
}

/// Descriptions are wrapped where they are written.
fn on_one_line(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text == "null",
            Value::Array(all) => all.iter().any(contains_null),
            Value::Object(all) => all.values().any(contains_null),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    #[test]
    fn the_schema_knows_no_null() {
        assert!(!contains_null(&Config::schema()));
    }

    #[test]
    fn every_key_has_a_type_and_a_sentence() {
        let schema = Config::schema();
        let tables = schema["definitions"].as_object().unwrap();
        let mut n_keys = 0;
        for (name, table) in tables.iter().chain([(&"top".to_owned(), &schema)]) {
            let Some(keys) = table["properties"].as_object() else {
                continue;
            };
            assert!(table["description"].is_string(), "{name}");
            assert_eq!(table["additionalProperties"], false, "{name}");
            for (key, value) in keys {
                n_keys += 1;
                let sentence = value["description"].as_str().unwrap_or_default();
                assert!(sentence.ends_with('.'), "{name}.{key}: {sentence:?}");
                let has_type = ["type", "$ref", "allOf", "anyOf", "oneOf", "enum"];
                assert!(
                    has_type.iter().any(|word| value.get(word).is_some()),
                    "{name}.{key}"
                );
            }
        }
        assert!(n_keys > 100, "{n_keys}");
    }
}
