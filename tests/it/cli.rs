//! The command line: help, exit codes, `check` and `embed`.

use std::{fs, io::Write, process::Stdio};

use serde_json::Value;

use crate::support::{embedgate, max_difference, run, tiny_bge_m3, tiny_config};

fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

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
    let file = config(&text);
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
    let shown = config(
        &out.replacen("***", "long-enough", 1)
            .replace("***", "another-key"),
    );
    assert_eq!(run(embedgate().arg("check").arg(shown.path())).0, Some(0));
}

#[test]
fn check_names_every_problem_with_its_key_and_exits_78() {
    let file = config(
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
    let file = config(&format!(
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
fn check_opens_tokenizer_weights_and_library() {
    let file = config(&tiny_config(""));
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
        let (code, _, errors) = run(embedgate().arg("check").arg(config(&text).path()));
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
    assert!(
        with("onnx").contains("embedgate convert"),
        "{}",
        with("onnx")
    );
}

#[test]
fn embed_turns_lines_into_json_lines() {
    let file = config(&tiny_config("max_length = 16"));
    let texts = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        texts.path(),
        format!("hello world\n\n你好\n{}\n", "long ".repeat(50)),
    )
    .unwrap();
    let mut command = embedgate();
    command
        .args(["embed", "--model", "BAAI/tiny", "--config"])
        .arg(file.path())
        .arg(texts.path());
    let (code, out, errors) = run(&mut command);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "an empty line is a text too");
    assert_eq!(
        (lines[0]["tokens"].as_u64(), lines[1]["tokens"].as_u64()),
        (Some(7), Some(2))
    );
    assert_eq!(lines[3]["tokens"], 16);
    assert!(lines[3]["truncated_from"].as_u64() > Some(16));

    // The same from standard input, cut.
    let mut command = embedgate();
    command
        .args(["embed", "--dimensions", "8", "--config"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello world")
        .unwrap();
    let cut: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let cut: Vec<f32> = serde_json::from_value(cut["embedding"].clone()).unwrap();
    let whole: Vec<f32> = serde_json::from_value(lines[0]["embedding"].clone()).unwrap();
    let length = whole[..8].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(
        max_difference(
            &cut,
            &whole[..8].iter().map(|x| x / length).collect::<Vec<_>>()
        ) < 1e-5
    );
}

#[test]
fn embed_names_what_is_missing() {
    let file = config(&tiny_config(""));
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--model", "huge", "--config"])
        .arg(file.path()));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("\"huge\"") && errors.contains("tiny"),
        "{errors}"
    );
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--config"])
        .arg(file.path())
        .arg("/no/such/file"));
    assert_eq!(code, Some(1));
    assert!(errors.contains("/no/such/file"), "{errors}");
    let binary = tempfile::NamedTempFile::new().unwrap();
    fs::write(binary.path(), b"ok\n\xff\xfe\n").unwrap();
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--config"])
        .arg(file.path())
        .arg(binary.path()));
    assert_eq!(code, Some(1));
    assert!(errors.contains("line 2"), "{errors}");
}

#[test]
fn the_program_runs_from_any_folder() {
    let file = config(&tiny_config("").replace(&format!("{:?}", tiny_bge_m3()), "\"tiny\""));
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
fn embed_prints_what_is_asked_of_each_text() {
    let folder = tempfile::tempdir().unwrap();
    let (config, texts) = (folder.path().join("c.toml"), folder.path().join("texts"));
    std::fs::write(&config, tiny_config("")).unwrap();
    std::fs::write(&texts, "hello world\na\n").unwrap();
    let (code, out, errors) = run(embedgate()
        .arg("--config")
        .arg(&config)
        .args(["embed", "--outputs", "sparse,colbert"])
        .arg(&texts));
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line.get("embedding").is_none(), "{line}");
        let sparse = &line["sparse_embedding"];
        let n = sparse["indices"].as_array().unwrap().len();
        assert!(
            n > 0 && sparse["values"].as_array().unwrap().len() == n,
            "{line}"
        );
        let rows = line["colbert_embedding"].as_array().unwrap();
        let n_tokens = line["tokens"].as_u64().unwrap();
        assert_eq!(rows.len() as u64, n_tokens - 1);
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 64));
    }
}
