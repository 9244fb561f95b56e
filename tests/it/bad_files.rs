//! Model files that are missing, cut off, flipped or hostile: a clear start-up error each; never a panic, hang or crash.

use std::{fs, path::Path};

use sha2::Digest;

use embedgate_test_support::{ModelCopy, embedgate, run, tiny_bge_m3, tiny_config};

fn truncate(path: &Path, length: u64) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

#[test]
fn a_whole_model_loads() {
    assert_eq!(ModelCopy::new().load("candle").0, Some(0));
}

#[test]
fn files_that_are_missing_cut_off_or_garbage_are_named() {
    type Damage = fn(&Path);
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    // Without it the sentencepiece model would do.
    let remove_all: Damage = |path| {
        fs::remove_file(path).unwrap();
        fs::remove_file(path.with_file_name("sentencepiece.bpe.model")).unwrap();
    };
    let empty: Damage = |path| truncate(path, 0);
    let half: Damage = |path| truncate(path, fs::metadata(path).unwrap().len() / 2);
    let garbage: Damage = |path| fs::write(path, [0x9c; 1000]).unwrap();
    let folder: Damage = |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let cases: [(&str, &[Damage]); 8] = [
        ("config.json", &[remove, empty, half, garbage, folder]),
        (
            "tokenizer.json",
            &[remove_all, empty, half, garbage, folder],
        ),
        ("pytorch_model.bin", &[remove, empty, half, garbage, folder]),
        ("modules.json", &[empty, half, garbage, folder]),
        ("1_Pooling/config.json", &[empty, half, garbage, folder]),
        ("sentence_bert_config.json", &[empty, half, garbage]),
        ("sparse_linear.pt", &[empty, half, garbage]),
        ("colbert_linear.pt", &[empty, half, garbage, folder]),
    ];
    for (name, damages) in cases {
        for (i, damage) in damages.iter().enumerate() {
            let model = ModelCopy::new();
            damage(&model.path(name));
            let (code, said) = model.load("candle");
            assert_eq!(code, Some(1), "{name} {i}: {said}");
            assert!(said.contains(name), "{name} {i}: {said}");
            assert!(!said.contains("panic"), "{name} {i}: {said}");
        }
    }
}

#[test]
fn settings_that_do_not_fit_the_weights_are_named() {
    let edits = [
        (
            "config.json",
            "\"hidden_size\": 64",
            "\"hidden_size\": 128",
            "has shape",
        ),
        (
            "config.json",
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            "encoder.layer.3",
        ),
        (
            "config.json",
            "\"intermediate_size\": 128",
            "\"intermediate_size\": 64",
            "has shape",
        ),
        (
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 5",
            "not a multiple",
        ),
        (
            "config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 0",
            "num_attention_heads is 0",
        ),
        (
            "config.json",
            "xlm-roberta",
            "gpt2",
            "model_type is \"gpt2\"",
        ),
        (
            "config.json",
            "\"gelu\"",
            "\"glu\"",
            "hidden_act is \"glu\"",
        ),
        (
            "config.json",
            "\"absolute\"",
            "\"rotary\"",
            "position_embedding_type",
        ),
        (
            "config.json",
            "\"max_position_embeddings\": 8194",
            "\"max_position_embeddings\": 99",
            "has shape",
        ),
        (
            "config.json",
            "\"type_vocab_size\": 1",
            "\"type_vocab_size\": 2",
            "has shape",
        ),
        (
            "config.json",
            "\"pad_token_id\": 1",
            "\"pad_token_id\": -1",
            "config.json",
        ),
        (
            "modules.json",
            "models.Normalize",
            "models.Dense",
            "modules.json names its folder: download it",
        ),
        (
            "modules.json",
            "models.Normalize",
            "models.CNN",
            "module \"CNN\" is not supported",
        ),
        (
            "modules.json",
            "\"1_Pooling\"",
            "\"../1_Pooling\"",
            "leaves the model folder",
        ),
        (
            "modules.json",
            "\"1_Pooling\"",
            "\"/etc\"",
            "leaves the model folder",
        ),
        (
            "1_Pooling/config.json",
            "\"pooling_mode_cls_token\": true",
            "\"pooling_mode\": \"attention\"",
            "pooling is \"attention\"",
        ),
        ("sentence_bert_config.json", "8192", "1", "max_seq_length"),
        (
            "sentence_bert_config.json",
            "8192",
            "\"many\"",
            "sentence_bert_config.json",
        ),
    ];
    for (file, from, to, expected) in edits {
        let model = ModelCopy::new();
        let text = fs::read_to_string(model.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(model.path(file), text.replace(from, to)).unwrap();
        let (code, said) = model.load("candle");
        assert_eq!(code, Some(1), "{from} -> {to}: {said}");
        assert!(
            said.contains(expected) && !said.contains("panic"),
            "{from} -> {to}: {said}"
        );
    }
}

#[test]
fn a_folder_that_says_more_than_is_obeyed_and_files_that_are_others_are_refused_by_name() {
    type Change = fn(&ModelCopy);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2271064456\n";
    let changes: [(Change, &str); 3] = [
        (
            |model| fs::remove_dir_all(model.path("1_Pooling")).unwrap(),
            "1_Pooling/config.json is not there",
        ),
        (
            |model| {
                let path = model.path("modules.json");
                let text = fs::read_to_string(&path).unwrap();
                let kind = "sentence_transformers.models.Transformer";
                fs::write(&path, text.replace(kind, "custom_st.Transformer")).unwrap();
            },
            "module \"custom_st.Transformer\" is not supported",
        ),
        (
            |model| {
                let path = model.path("config.json");
                let text = fs::read_to_string(&path).unwrap();
                let more = "{\"quantization_config\": {\"bits\": 4},";
                fs::write(&path, text.replacen('{', more, 1)).unwrap();
            },
            "quantization_config is set",
        ),
    ];
    let files = [
        ("adapter_config.json", "{\"peft_type\": \"LORA\"}"),
        ("adapter_model.safetensors", "x"),
        ("model.safetensors", pointer),
        ("pytorch_model.bin", pointer),
        ("tokenizer.json", pointer),
        (
            "config.json",
            "<!DOCTYPE html><html><body>Sign in</body></html>",
        ),
    ];
    let refused = |model: &ModelCopy, expected: &[&str]| {
        let (code, said) = model.load("candle");
        assert_eq!(code, Some(1), "{expected:?}: {said}");
        let has_all = expected.iter().all(|part| said.contains(part));
        assert!(has_all && !said.contains("panic"), "{expected:?}: {said}");
    };
    for (change, expected) in changes {
        let model = ModelCopy::new();
        change(&model);
        refused(&model, &[expected]);
    }
    for (name, text) in files {
        let model = ModelCopy::new();
        fs::write(model.path(name), text).unwrap();
        let what = match text.get(..4) {
            Some("vers") => "git lfs pull",
            Some("<!DO") => "a page of HTML",
            _ => "an adapter",
        };
        refused(&model, &[name, what]);
    }
}

/// Most flipped bits of weights leave numbers, which no check of the model itself can tell from right ones.
#[test]
fn a_file_with_another_sha256_than_is_stated_is_refused_by_name() {
    let model = ModelCopy::new();
    let weights = model.path("pytorch_model.bin");
    let sum = |bytes: &[u8]| format!("{:x}", sha2::Sha256::digest(bytes));
    let bytes = fs::read(&weights).unwrap();
    let check = |file: &str, sum: &str| {
        let config = tiny_config("").replace(
            &format!("path = {:?}", tiny_bge_m3()),
            &format!(
                "path = {:?}\nsha256 = {{ {file:?} = {sum:?} }}",
                model.folder()
            ),
        );
        fs::write(model.path("test.toml"), config).unwrap();
        let (code, said, errors) = run(embedgate()
            .arg("check")
            .arg("--config")
            .arg(model.path("test.toml")));
        (code, said + &errors)
    };
    let (code, said) = check("pytorch_model.bin", &sum(&bytes).to_uppercase());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check("no_such_file", &sum(&bytes));
    assert!(
        code == Some(78) && said.contains("no_such_file"),
        "{code:?} {said}"
    );
    let (code, said) = check("pytorch_model.bin", "abc");
    assert!(
        code == Some(78) && said.contains("64 hex digits"),
        "{code:?} {said}"
    );
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(&weights, &flipped).unwrap();
    let (code, said) = check("pytorch_model.bin", &sum(&bytes));
    assert_eq!(code, Some(78), "{said}");
    for part in ["pytorch_model.bin", &sum(&bytes), &sum(&flipped)] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn a_server_whose_models_all_fail_exits_and_says_why() {
    let model = ModelCopy::new();
    truncate(&model.path("pytorch_model.bin"), 1000);
    let config = tiny_config("").replace(
        &format!("{:?}", tiny_bge_m3()),
        &format!("{:?}", model.folder()),
    );
    fs::write(model.path("test.toml"), &config).unwrap();
    let serve = |file: &Path| {
        let (code, _, said) = run(embedgate()
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(file));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("pytorch_model.bin"), "{said}");
    };
    serve(&model.path("test.toml"));
    // With all models required, one that fails is enough.
    let more = format!(
        "[server]\nrequire_all_models = true\n[models.well]\npath = {:?}\n",
        tiny_bge_m3()
    );
    fs::write(model.path("test.toml"), config + &more).unwrap();
    serve(&model.path("test.toml"));
}

/// As ModelScope's clients leave a folder, and as a cache of either hub shows it: every file a link.
#[test]
fn what_hubs_put_beside_a_model_does_not_disturb_it() {
    let model = ModelCopy::new();
    fs::write(
        model.path("configuration.json"),
        r#"{"framework": "pytorch", "task": "sentence-similarity"}"#,
    )
    .unwrap();
    for name in [
        ".msc",
        ".mdl",
        ".mv",
        "README.md",
        ".gitattributes",
        "long.jpg",
    ] {
        fs::write(model.path(name), [0x80, 4, 0x95]).unwrap();
    }
    for name in ["imgs", ".lock", "._____temp"] {
        fs::create_dir(model.path(name)).unwrap();
    }
    fs::write(model.path("imgs/bm25.jpg"), "").unwrap();
    let (code, said) = model.load("candle");
    assert_eq!(code, Some(0), "{said}");

    let (links, blobs) = (ModelCopy::new(), tempfile::tempdir().unwrap());
    for entry in fs::read_dir(links.folder()).unwrap() {
        let path = entry.unwrap().path();
        let blob = blobs.path().join(path.file_name().unwrap());
        if path.is_file() {
            fs::rename(&path, &blob).unwrap();
            std::os::unix::fs::symlink(&blob, &path).unwrap();
        }
    }
    let (code, said) = links.load("candle");
    assert_eq!(code, Some(0), "{said}");
}
