//! The schema of the configuration is one that validators of JSON Schema take, and says of files what the program says.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use embedgate_config::{Config, Environment};
use embedgate_test_support::{config_with_all_keys, embedgate, root, run};

use crate::support::installed;

/// Reads a schema and a TOML file, and prints what is wrong with the file by the schema.
const VALIDATE: &str = "
import json, sys, tomllib, jsonschema_rs
schema, file = json.load(open(sys.argv[1])), tomllib.load(open(sys.argv[2], 'rb'))
file = json.loads(json.dumps(file, default=str))
for error in jsonschema_rs.validator_for(schema).iter_errors(file):
    print('/'.join(map(str, error.instance_path)), error.message)
";

#[test]
fn the_schema_says_of_files_what_the_program_says() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    let (code, out, errors) = run(embedgate().arg("schema"));
    assert_eq!(code, Some(0), "{errors}");
    fs::write(&schema, out).unwrap();
    let problems = |text: &str| {
        let file = folder.path().join("file.toml");
        fs::write(&file, text).unwrap();
        let python = installed("clients/schemathesis/bin/python");
        let mut command = Command::new(python);
        command.args(["-c", VALIDATE]).arg(&schema).arg(&file);
        let (code, out, errors) = run(command.stdin(Stdio::null()));
        assert_eq!(code, Some(0), "{errors}");
        out
    };
    let config = |name: &str| fs::read_to_string(root().join("config").join(name)).unwrap();
    let reference = config_with_all_keys();
    for text in [&reference, &config("demo.toml"), &config("bge-m3.toml")] {
        assert_eq!(problems(text), "");
    }
    let model = "auth.mode = \"none\"\n[models.m]\npath = \"/\"\n";
    // What the program reads, the schema takes.
    for right in [
        "replicas = \"auto\"",
        "replicas = 3",
        "backend = { device = \"cuda:1\" }",
        "lane = \"${LANE}\"",
        "[log]\nlevel = \"${LEVEL}\"",
        "[auth]\nkeys = [\"long-enough\", { key = \"long-enough-2\", expires = 2027-12-31, lane = \"bulk\" }]",
        "[plugins.p]\npath = \"a\"\ninstance = { reuse = 3 }",
        "[plugins.p]\npath = \"a\"\n[plugins.p.grants.crypto.issuers.i]\njwks = \"a\"\naudience = \"b\"",
    ] {
        let text = match right.starts_with("[auth]") {
            true => format!("{right}\n[models.m]\npath = \"/\""),
            false => format!("{model}{right}"),
        };
        let variables = Environment::from([("LANE", "bulk"), ("LEVEL", "debug")]);
        let read = Config::parse(&text, Path::new("/"), &variables);
        let found = read.err().unwrap_or_default();
        assert!(found.is_empty(), "{right}: {found:?}");
        assert_eq!(problems(&text), "", "{right}");
    }
    // What the schema refuses, the program does, too.
    for (wrong, at) in [
        ("[server]\nlisen = \"a\"", "server"),
        ("[server]\nmax_inputs = \"many\"", "server/max_inputs"),
        ("[log]\nlevel = \"loud\"", "log/level"),
        ("[auth]\nkeys = [{ nam = \"x\" }]", "auth/keys/0"),
        ("[models.m]\naliases = []", "models/m"),
        (
            "[models.m]\npath = \"a\"\nreplicas = \"some\"",
            "models/m/replicas",
        ),
        (
            "[models.m]\npath = \"a\"\nbackend = { type = \"tensorflow\" }",
            "models/m/backend/type",
        ),
        (
            "[models.m]\npath = \"a\"\nbackend = { devices = [] }",
            "models/m/backend/devices",
        ),
        (
            "[plugins.p]\npath = \"a\"\ninstance = \"old\"",
            "plugins/p/instance",
        ),
        ("colour = \"red\"", ""),
    ] {
        let said = problems(wrong);
        assert!(said.starts_with(&format!("{at} ")), "{wrong}: {said}");
        let read = Config::parse(wrong, Path::new("/"), &Environment::default());
        let key = at.split('/').take(2).collect::<Vec<_>>().join(".");
        let problems = read.unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.key.starts_with(&key)),
            "{wrong}: {problems:?}"
        );
    }
}
