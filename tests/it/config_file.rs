//! The files in `config/` are true.

use std::path::Path;

use embedgate_config::{Config, Environment, IssuerConfig, ModelConfig, PluginConfig, Problem};
use serde_json::Value as Json;
use toml::{Table, Value};

use embedgate_test_support::{config_with_all_keys, root};

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join("config").join(name)).unwrap()
}

fn with_all_keys() -> Table {
    config_with_all_keys().parse().unwrap()
}

#[test]
fn the_reference_states_the_defaults() {
    let mut reference: Table = text("embedgate.toml").parse().unwrap();
    reference.insert(
        "auth".into(),
        Value::Table("mode = \"none\"".parse().unwrap()),
    );
    reference.insert(
        "models".into(),
        Value::Table(format!("[m]\npath = {:?}", root()).parse().unwrap()),
    );
    let got = Config::parse(
        &reference.to_string(),
        Path::new("/"),
        &Environment::default(),
    )
    .unwrap();
    let least = format!("[auth]\nmode = \"none\"\n[models.m]\npath = {:?}", root());
    let expected = Config::parse(&least, Path::new("/"), &Environment::default()).unwrap();
    assert_eq!(got, expected);
    assert_eq!(got.server, Config::default().server);
}

#[test]
fn the_reference_can_be_read_with_all_its_keys() {
    let reference = with_all_keys();
    let environment = Environment::from([
        ("EMBEDGATE_KEY", "long-enough"),
        ("HF_TOKEN", "a"),
        ("MODELSCOPE_API_TOKEN", "b"),
    ]);
    let problems = match Config::parse(&reference.to_string(), Path::new("/nowhere"), &environment)
    {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    // The example is a candle model with an ONNX file, on one device and several, that is loaded at the start and leaves when it
    // is idle, its model for queries is not there, and it has both ways of authentication.
    let expected = [
        "auth.keys",
        "models.bge-m3-local.backend.devices",
        "models.bge-m3-local.backend.file",
        "models.bge-m3-local.idle",
        "models.bge-m3-local.query_model",
    ];
    let mut keys: Vec<_> = problems
        .iter()
        .map(|Problem { key, .. }| key.as_str())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, expected, "{problems:#?}");
}

/// A key of the reference, with the comment above it.
struct Key {
    table: String,
    name: String,
    comment: String,
}

fn keys() -> Vec<Key> {
    let (mut keys, mut table, mut comment) = (Vec::new(), String::new(), String::new());
    for line in text("embedgate.toml").lines() {
        let setting = line.trim_start_matches('#');
        if let Some(sentence) = line.strip_prefix("# ") {
            comment = format!("{comment} {sentence}").trim_start().to_owned();
        } else if let Some(title) = setting.strip_prefix('[') {
            table = title.trim_end_matches(']').to_owned();
            comment.clear();
        } else if let Some((name, _)) = setting.split_once(" = ") {
            keys.push(Key {
                table: table.clone(),
                name: name.to_owned(),
                comment: std::mem::take(&mut comment),
            });
        } else {
            comment.clear();
        }
    }
    keys
}

/// The schema of the table or key that this path leads to; names of models and the like lead to any.
fn at<'a>(schema: &'a Json, path: &str) -> &'a Json {
    let resolved = |mut value: &'a Json| loop {
        value = match (value.get("$ref"), value.get("allOf")) {
            (Some(Json::String(path)), _) => schema.pointer(path.trim_start_matches('#')).unwrap(),
            (_, Some(all)) => &all[0],
            _ => return value,
        };
    };
    let mut value = resolved(schema);
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let inner = value["properties"]
            .get(part)
            .or(value.get("additionalProperties"));
        value =
            resolved(inner.unwrap_or_else(|| panic!("{path}: there is no {part} in {value:#}")));
    }
    value
}

#[test]
fn the_comment_of_a_key_is_the_sentence_of_its_type() {
    let schema = Config::schema();
    // What a plugin's settings are called is its own affair.
    let keys = keys()
        .into_iter()
        .filter(|key| !key.table.ends_with(".settings"));
    let mut n_keys = 0;
    for Key {
        table,
        name,
        comment,
    } in keys
    {
        let sentence = at(&schema, &table)["properties"][&name]["description"].as_str();
        let sentence = sentence.map(|text| text.replace('`', ""));
        assert_eq!(Some(comment.replace('`', "")), sentence, "{table}.{name}");
        n_keys += 1;
    }
    assert!(n_keys > 100, "{n_keys}");
}

/// Tables whose keys stand in a line of the reference, or in the sentence of their key.
const IN_A_LINE: [&str; 3] = ["auth.keys", "models.NAME.rerank", "plugins.NAME.instance"];
/// The name in the reference of what has any name.
const NAMES: [(&str, &str); 4] = [
    ("models.NAME", "models.bge-m3-local"),
    ("plugins.NAME", "plugins.my-plugin"),
    ("auth.limits.NAME", "auth.limits.standard"),
    ("issuers.NAME", "issuers.main"),
];

/// Adds the paths of all tables of a schema from this one on.
fn add_tables(schema: &Json, value: &Json, path: &str, tables: &mut Vec<String>) {
    if let Some(Json::String(to)) = value.get("$ref") {
        let value = schema.pointer(to.trim_start_matches('#')).unwrap();
        return add_tables(schema, value, path, tables);
    }
    for word in ["allOf", "anyOf"] {
        let choices = value.get(word).and_then(Json::as_array);
        for choice in choices.into_iter().flatten() {
            add_tables(schema, choice, path, tables);
        }
    }
    if let Some(items) = value.get("items") {
        add_tables(schema, items, path, tables);
    }
    if let Some(inner) = value
        .get("additionalProperties")
        .filter(|inner| inner.is_object())
    {
        add_tables(schema, inner, &format!("{path}.NAME"), tables);
    }
    let Some(keys) = value.get("properties").and_then(Json::as_object) else {
        return;
    };
    tables.push(path.to_owned());
    for (key, inner) in keys {
        let path = format!("{path}.{key}");
        add_tables(schema, inner, path.trim_start_matches('.'), tables);
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let schema = Config::schema();
    let documented = with_all_keys();
    let mut tables = Vec::new();
    add_tables(&schema, &schema, "", &mut tables);
    tables.retain(|table| !IN_A_LINE.contains(&table.as_str()));
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables {
        let named = NAMES
            .iter()
            .fold(table, |table, (any, name)| table.replace(any, name));
        let parts = named.split('.').filter(|part| !part.is_empty());
        let there = parts.fold(&documented, |at, part| at[part].as_table().unwrap());
        let mut there: Vec<&String> = there.keys().collect();
        there.sort();
        let known = at(&schema, &named)["properties"].as_object().unwrap();
        assert_eq!(there, known.keys().collect::<Vec<_>>(), "[{named}]");
    }
}

#[test]
fn the_page_of_all_keys_is_what_the_program_prints() {
    let page = std::fs::read_to_string(root().join("docs/configuration-reference.md")).unwrap();
    assert!(
        page == Config::reference(),
        "write it again: embedgate schema --format markdown > docs/configuration-reference.md"
    );
}

#[test]
fn keys_of_plugins_that_have_defaults_state_them() {
    let reference = with_all_keys();
    let documented = &reference["plugins"]["my-plugin"];
    let issuer = &documented["grants"]["crypto"]["issuers"]["main"];
    // What has a default states it; the rest is an example.
    let defaults = Table::try_from(PluginConfig::default()).unwrap();
    for key in [
        "order",
        "models",
        "routes",
        "headers",
        "timeout",
        "max_memory",
        "max_instances",
        "instance",
        "on_error",
        "settings_files",
    ] {
        assert_eq!(documented[key], defaults[key], "plugins.{key}");
    }
    let least: Value = "jwks = \"jwks.json\"".parse::<Table>().unwrap().into();
    let least: IssuerConfig = least.try_into().unwrap();
    let shown = Table::try_from(&least).unwrap();
    for key in ["audience", "algorithms", "leeway"] {
        assert_eq!(issuer[key], shown[key], "issuers.{key}");
    }
}

#[test]
fn model_keys_of_the_reference_that_have_defaults_state_them() {
    let documented = with_all_keys()["models"]["bge-m3-local"]
        .as_table()
        .unwrap()
        .clone();
    let defaults = Table::try_from(ModelConfig::default()).unwrap();
    for (key, default) in defaults
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "path" | "backend"))
    {
        assert_eq!(&documented[key], default, "{key}");
    }
    let backend = defaults["backend"].as_table().unwrap();
    for (key, default) in backend {
        assert_eq!(&documented["backend"][key], default, "backend.{key}");
    }
}

#[test]
fn the_ready_made_files_are_valid() {
    let folder = root().join("config");
    let names = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.len() > 2, "{names:?}");
    // The reference has every key, examples among them: tests of its own read it.
    let ready_made = names
        .iter()
        .filter(|name| name.ends_with(".toml") && *name != "embedgate.toml");
    for name in ready_made {
        let parsed = Config::parse(&text(name), &folder, &Environment::default());
        let problems = parsed.err().unwrap_or_default();
        // The folder of a model that is not downloaded yet is all that may be missing.
        assert!(
            problems
                .iter()
                .all(|problem| problem.key.ends_with(".path")),
            "{name}: {problems:#?}"
        );
    }
}
