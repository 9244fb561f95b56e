//! The command line: help, exit codes, `check` and `embed`.

use std::fs;

use embedgate_test_support::{Gateway, config_file, embedgate, run, tiny_bge_m3, tiny_config};

#[test]
fn help_and_version_are_answers_and_mistakes_are_exit_code_64() {
    let (code, out, _) = run(embedgate().arg("--help"));
    assert_eq!(code, Some(0));
    for word in [
        "serve",
        "check",
        "embed",
        "convert",
        "--config",
        "--listen",
        "EMBEDGATE_CONFIG",
        "Exit codes",
    ] {
        assert!(out.contains(word), "{word} is not in:\n{out}");
    }
    assert_eq!(
        run(embedgate().arg("--version")).1,
        format!("embedgate {}\n", env!("CARGO_PKG_VERSION"))
    );
    for mistake in [
        &["--no-such-flag"][..],
        &["dance"],
        &["--listen", "localhost"],
        &["embed", "--dimensions", "few"],
        &["convert"],
    ] {
        let (code, out, errors) = run(embedgate().args(mistake));
        assert_eq!((code, out.as_str()), (Some(64), ""), "{mistake:?}");
        assert!(!errors.is_empty());
    }
}

#[test]
fn check_prints_the_resolved_configuration_with_secrets_masked() {
    let text =
        tiny_config("").replace("mode = \"none\"", "keys = [\"${KEY_A}\", \"written-here\"]");
    let file = config_file(&text);
    let mut command = embedgate();
    command
        .args(["check"])
        .arg(file.path())
        .env("KEY_A", "from-the-environment")
        .env("EMBEDGATE_CACHE__MAX_SIZE", "1MiB");
    let (code, out, errors) = run(&mut command);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(
        out.matches("key = \"***\"").count() == 2 && out.contains("max_size = \"1MiB\""),
        "{out}"
    );
    assert!(
        !out.contains("from-the-environment") && !out.contains("written-here"),
        "{out}"
    );
    // What it prints is a configuration again.
    let shown = config_file(
        &out.replacen("***", "long-enough", 1)
            .replace("***", "another-key"),
    );
    assert_eq!(run(embedgate().arg("check").arg(shown.path())).0, Some(0));
}

#[test]
fn check_names_every_problem_with_its_key_and_exits_78() {
    let file = config_file(
        "[server]\nlisten = \"x\"\nmax_body = 5\n[models.a]\npath = \"/nowhere\"\nbackend = { type = \"tf\" }\n",
    );
    for command in [&["check"][..], &["serve", "--config"], &["--config"]] {
        let (code, out, errors) = run(embedgate().args(command).arg(file.path()));
        assert_eq!((code, out.as_str()), (Some(78), ""), "{command:?}");
        for key in [
            "server.listen",
            "server.max_body",
            "models.a.path",
            "models.a.backend.type",
            "auth: ",
        ] {
            assert!(errors.contains(key), "{key} is not in:\n{errors}");
        }
    }
}

#[test]
fn a_missing_configuration_says_where_it_was_looked_for() {
    let empty = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(embedgate().current_dir(empty.path()));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("--config")
            && errors.contains("EMBEDGATE_CONFIG")
            && errors.contains("embedgate.toml"),
        "{errors}"
    );
    let (code, _, errors) = run(embedgate().args(["--config", "/no/such.toml"]));
    assert_eq!(code, Some(78));
    assert!(errors.contains("/no/such.toml"), "{errors}");
}

#[test]
fn check_looks_into_the_models_folders() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("config.json"),
        "{\"model_type\": \"gpt2\"}",
    )
    .unwrap();
    let file = config_file(&format!(
        "[auth]\nmode = \"none\"\n[models.a]\npath = {:?}\n",
        folder.path()
    ));
    let (code, _, errors) = run(embedgate().arg("check").arg(file.path()));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("models.a: ") && errors.contains("config.json: model_type is \"gpt2\""),
        "{errors}"
    );
}

#[test]
fn check_opens_tokenizer_and_weights() {
    let file = config_file(&tiny_config(""));
    assert_eq!(run(embedgate().arg("check").arg(file.path())).0, Some(0));
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        tiny_bge_m3().join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let with = |backend: &str| {
        let text = format!(
            "[auth]\nmode = \"none\"\n[models.a]\npath = {:?}\nbackend = {{ type = \"{backend}\" }}\n",
            folder.path()
        );
        let (code, _, errors) = run(embedgate().arg("check").arg(config_file(&text).path()));
        assert_eq!(code, Some(78));
        errors
    };
    assert!(
        with("candle").contains("tokenizer.json is missing")
            || with("candle").contains("tokenizer.json: is missing")
    );
    fs::copy(
        tiny_bge_m3().join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    assert!(
        with("candle").contains("has no weights"),
        "{}",
        with("candle")
    );
}

#[test]
fn the_program_runs_from_any_folder() {
    let file = config_file(&tiny_config("").replace(&format!("{:?}", tiny_bge_m3()), "\"tiny\""));
    let folder = file
        .path()
        .parent()
        .unwrap()
        .join(format!("embedgate-any-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(tiny_bge_m3(), folder.join("tiny")).unwrap();
    fs::copy(file.path(), folder.join("embedgate.toml")).unwrap();
    let here = run(embedgate().arg("check").current_dir(&folder));
    let elsewhere = run(embedgate()
        .arg("check")
        .arg(folder.join("embedgate.toml"))
        .current_dir("/"));
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(
        (here.0, elsewhere.0),
        (Some(0), Some(0)),
        "{} {}",
        here.2,
        elsewhere.2
    );
}

#[test]
fn check_says_where_a_model_is_slower_than_it_could_be() {
    let text = tiny_config("[onednn]\nlibrary = \"/nowhere/libdnnl.so\"");
    let file = config_file(&text);
    let (code, _, said) = run(embedgate().arg("check").arg(file.path()));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("WARN") && said.contains("runs with candle, in f32 and slower"),
        "{said}"
    );
}

#[test]
fn the_log_says_how_to_try_it() {
    let gateway = Gateway::start(&tiny_config(""));
    gateway.wait_for_log("try it: curl http://127.0.0.1:");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("try it: ")).unwrap();
    assert!(
        line.contains("/v1/embeddings") && line.contains("tiny"),
        "{line}"
    );
}
