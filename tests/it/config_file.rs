//! The files in `config/` are true.

use std::path::Path;

use embedgate_config::{
    AuthConfig, CacheConfig, Config, Environment, IssuerConfig, LogConfig, ModelConfig,
    PluginConfig, Problem, ServerConfig, TelemetryConfig, UsageConfig,
};
use embedgate_request::LimitConfig;
use toml::{Table, Value};

use embedgate_test_support::root;

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join("config").join(name)).unwrap()
}

/// The reference with its commented keys put in: `#key = ...` and `#[table]`, while sentences begin with `# `.
fn with_all_keys() -> Table {
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let uncomment = |line: &str| {
        if is_key(line) {
            line[1..].to_owned()
        } else {
            line.to_owned()
        }
    };
    text("embedgate.toml")
        .lines()
        .map(uncomment)
        .collect::<Vec<_>>()
        .join("\n")
        .parse()
        .unwrap()
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
fn the_reference_names_every_key_and_no_other() {
    let reference = with_all_keys();
    // All optional keys are set, so that serialization shows them.
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

    let full: ModelConfig = reference["models"]["bge-m3-local"]
        .clone()
        .try_into()
        .unwrap();
    let shown = Table::try_from(&full).unwrap();
    let documented = reference["models"]["bge-m3-local"].as_table().unwrap();
    let names = |table: &Table| {
        let mut names: Vec<String> = table.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&shown), names(documented));
    assert_eq!(
        names(shown["backend"].as_table().unwrap()),
        names(documented["backend"].as_table().unwrap())
    );
    // Optional keys show where they are set, so each table is read and written again.
    let server: ServerConfig = reference["server"].clone().try_into().unwrap();
    let cache: CacheConfig = reference["cache"].clone().try_into().unwrap();
    let log: LogConfig = reference["log"].clone().try_into().unwrap();
    let usage: UsageConfig = reference["usage"].clone().try_into().unwrap();
    let telemetry: TelemetryConfig = reference["telemetry"].clone().try_into().unwrap();
    for (section, shown) in [
        ("server", Table::try_from(&server).unwrap()),
        ("cache", Table::try_from(&cache).unwrap()),
        ("log", Table::try_from(&log).unwrap()),
        ("usage", Table::try_from(&usage).unwrap()),
        ("telemetry", Table::try_from(&telemetry).unwrap()),
    ] {
        let documented = reference[section].as_table().unwrap();
        assert_eq!(names(&shown), names(documented), "[{section}]");
    }
    let file = Table::try_from(&cache.file).unwrap();
    let documented = reference["cache"]["file"].as_table().unwrap();
    assert_eq!(names(&file), names(documented));
}

#[test]
fn the_reference_names_every_key_of_auth_and_plugins() {
    let reference = with_all_keys();
    let names = |table: &Table| {
        let mut names: Vec<String> = table.keys().cloned().collect();
        names.sort();
        names
    };
    let same = |shown: &Table, documented: &Value, at: &str| {
        assert_eq!(names(shown), names(documented.as_table().unwrap()), "{at}");
    };
    let auth: AuthConfig = reference["auth"].clone().try_into().unwrap();
    let shown = Table::try_from(&auth).unwrap();
    same(&shown, &reference["auth"], "auth");
    let limit: LimitConfig = reference["auth"]["limits"]["standard"]
        .clone()
        .try_into()
        .unwrap();
    let shown = Table::try_from(limit).unwrap();
    same(
        &shown,
        &reference["auth"]["limits"]["standard"],
        "auth.limits",
    );

    let documented = &reference["plugins"]["my-plugin"];
    let plugin: PluginConfig = documented.clone().try_into().unwrap();
    let shown = Table::try_from(&plugin).unwrap();
    same(&shown, documented, "plugins");
    let grants = |of: &Table| of["grants"].as_table().unwrap().clone();
    same(&grants(&shown), &documented["grants"], "grants");
    for grant in ["kv", "http", "crypto"] {
        let shown = grants(&shown)[grant].as_table().unwrap().clone();
        same(&shown, &documented["grants"][grant], grant);
    }
    let issuer = &documented["grants"]["crypto"]["issuers"]["main"];
    let read: IssuerConfig = issuer.clone().try_into().unwrap();
    same(&Table::try_from(&read).unwrap(), issuer, "issuers");

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
