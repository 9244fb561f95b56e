//! The command line: help, exit codes, `check` and `embed`.

use std::{fs, path::Path};

use embedgate_test_support::{
    Gateway, config_file, embedgate, fixtures, run, tiny_bge_m3, tiny_config,
};

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

/// All that is obeyed of a folder is said, and all that is not read of it.
#[test]
fn check_says_what_would_be_served_of_a_model_s_folder() {
    let of = |path: &std::path::Path| run(embedgate().arg("check").arg(path));
    let (code, said, errors) = of(&fixtures().join("layouts/pooling-list"));
    assert_eq!(code, Some(0), "{errors}");
    for expected in [
        "bert: 2 layers of width 32",
        "vectors of 16 numbers",
        "last+weighted_mean (as the folder says)",
        "LayerNorm of 64, then Dense from 64 to 16",
        "tokens at most; a longer text is cut on the right",
        "none where a request names none",
        "3_Dropout/config.json: nothing of this folder is read",
    ] {
        assert!(said.contains(expected), "{expected}:\n{said}");
    }
    let (_, said, _) = of(&fixtures().join("layouts/qwen3-embedding"));
    assert!(
        said.contains("query = \"Instruct: Given a web search query"),
        "{said}"
    );
    assert!(
        said.contains("merges.txt: nothing of it is needed"),
        "{said}"
    );
    let (_, said, _) = of(&fixtures().join("tiny-bert-reranker"));
    assert!(said.contains("scores of pairs of texts"), "{said}");
    // A language model that says nothing of a pooling may be a reranker.
    let silent = tempfile::tempdir().unwrap();
    let embedding = fixtures().join("layouts/qwen3-embedding");
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        fs::copy(embedding.join(file), silent.path().join(file)).unwrap();
    }
    let config = silent.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("Qwen3Model", "Qwen3ForCausalLM")).unwrap();
    let (code, _, errors) = of(silent.path());
    assert_eq!(code, Some(78), "{errors}");
    assert!(errors.contains("may be a reranker"), "{errors}");
    let empty = tempfile::tempdir().unwrap();
    let (code, _, errors) = of(empty.path());
    assert_eq!(code, Some(78), "{errors}");
    assert!(errors.contains("config.json"), "{errors}");
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

/// Starts `embedgate serve` with these arguments in a folder, asks it once, and ends it.
fn serve_once(folder: &Path, args: &[&str], key: Option<&str>) -> (u16, String) {
    let mut command = embedgate();
    command
        .current_dir(folder)
        .args(["serve", "--listen", "127.0.0.1:0", "--port-file", "port"])
        .args(args)
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let port = loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {args:?}");
        match fs::read_to_string(folder.join("port")) {
            Ok(port) => break port,
            Err(_) => std::thread::yield_now(),
        }
    };
    let ask = || {
        let mut stream =
            std::net::TcpStream::connect(format!("127.0.0.1:{}", port.trim())).unwrap();
        let key = key
            .map(|key| format!("authorization: Bearer {key}\r\n"))
            .unwrap_or_default();
        let request =
            format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{key}\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    };
    let answer = loop {
        let answer: (u16, String) = ask();
        if answer.0 != 503 {
            break answer;
        }
    };
    fs::remove_file(folder.join("port")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    answer
}

#[test]
fn one_model_is_served_without_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bge_m3();
    let model = model.to_str().unwrap();
    let (status, body) = serve_once(folder.path(), &["--model", model], None);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"id\":\"tiny-bge-m3\""), "{body}");
    let named = [
        "--model",
        model,
        "--name",
        "bge",
        "--alias",
        "a,b",
        "--key",
        "a-long-key",
    ];
    let (status, body) = serve_once(folder.path(), &named, Some("a-long-key"));
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("\"id\":\"bge\"") && body.contains("[\"a\",\"b\"]"),
        "{body}"
    );
    let (status, body) = serve_once(folder.path(), &named, None);
    assert_eq!(status, 401, "{body}");
}

#[test]
fn a_model_alone_is_not_served_to_everybody_unless_that_is_said() {
    let model = tiny_bge_m3();
    let serve = |args: &[&str]| run(embedgate().arg("serve").arg("--model").args(args));
    let model = model.to_str().unwrap();
    for (args, expected) in [
        (vec![model, "--listen", "0.0.0.0:0"], "--no-auth"),
        (
            vec![model, "--key", "a-long-key", "--no-auth"],
            "leave out one of the two",
        ),
        (vec![model, "--key", "short"], "at least 8 characters"),
        (vec!["nowhere"], "is no folder, nor a model of a hub"),
        (vec!["a/none"], "`embedgate pull a/none --to models/none`"),
        (vec![model, "--config", "x.toml"], "without a configuration"),
    ] {
        let (code, _, said) = serve(&args);
        assert_eq!(code, Some(78), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn init_writes_a_configuration_that_works_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_bge_m3();
    let init = |args: &[&str]| run(embedgate().current_dir(&folder).arg("init").args(args));
    let (code, out, said) = init(&[model.to_str().unwrap(), "--name", "bge m3"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.contains("embedgate check\n  embedgate serve\n"),
        "{out}"
    );
    let key = out
        .lines()
        .find(|line| line.starts_with("eg_"))
        .expect(&out);
    let (status, body) = serve_once(folder.path(), &[], Some(key));
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"id\":\"bge m3\""), "{body}");
    let (code, _, said) = init(&["BAAI/bge-m3"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("embedgate.toml is there already"), "{said}");
    // Of a model that is to be fetched.
    let (code, out, said) = init(&["BAAI/bge-m3", "--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.contains("embedgate pull bge-m3\n  embedgate serve\n"),
        "{out}"
    );
    let (code, _, said) = run(embedgate().current_dir(&folder).arg("serve"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("`embedgate pull BAAI/bge-m3 --to "), "{said}");
    for (args, expected) in [
        (vec!["models/x", "--force"], "there is no folder models/x"),
        (vec!["BAAI/bge-m3", "--name", "", "--force"], "is no name"),
        (vec![".", "--force"], "it has no config.json"),
    ] {
        let (code, _, said) = init(&args);
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    // The name may be the hub's own, and the file another.
    let other = [
        "BAAI/bge-m3",
        "--name",
        "BAAI/bge-m3",
        "--config",
        "other file.toml",
    ];
    let (code, out, said) = init(&other);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.contains("embedgate pull BAAI/bge-m3 --config 'other file.toml'"),
        "{out}"
    );
    let (code, _, said) = init(&["nothing"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("OWNER/NAME"), "{said}");
}
