//! Model files that are missing, cut off, flipped or hostile: a clear start-up error each; never a panic, hang or crash.

use std::{
    fs,
    path::{Path, PathBuf},
};

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::{Backend, BackendError, ModelFolder, Outputs, Pooling, TokenBatch};

use crate::support::{converted, copy, embedgate, minilm, run, tiny_bge_m3, tiny_config};

/// A copy of the tiny model that a test may damage.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&tiny_bge_m3(), folder.path());
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a server of this model; returns the exit code and what it said.
    fn serve(&self, backend: &str) -> (Option<i32>, String) {
        let config = tiny_config("[log.x]").replace("[log.x]", "");
        let config = config.replace(
            &format!("{:?}", tiny_bge_m3()),
            &format!("{:?}", self.0.path()),
        );
        let config = config.replace(
            "backend = { threads = 1 }",
            &format!("backend = {{ type = {backend:?} }}"),
        );
        fs::write(self.path("test.toml"), config).unwrap();
        let mut command = embedgate();
        // Loads as a server does, and ends after nothing when the model is well.
        command
            .args(["embed", "--config"])
            .arg(self.path("test.toml"));
        let (code, _, errors) = run(&mut command);
        (code, errors)
    }
}

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
    assert_eq!(Copy::new().serve("candle").0, Some(0));
}

#[test]
fn files_that_are_missing_cut_off_or_garbage_are_named() {
    type Damage = fn(&Path);
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    let empty: Damage = |path| truncate(path, 0);
    let half: Damage = |path| truncate(path, fs::metadata(path).unwrap().len() / 2);
    let garbage: Damage = |path| fs::write(path, [0x9c; 1000]).unwrap();
    let folder: Damage = |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let cases: [(&str, &[Damage]); 8] = [
        ("config.json", &[remove, empty, half, garbage, folder]),
        ("tokenizer.json", &[remove, empty, half, garbage, folder]),
        ("pytorch_model.bin", &[remove, empty, half, garbage, folder]),
        ("modules.json", &[empty, half, garbage, folder]),
        ("1_Pooling/config.json", &[empty, half, garbage, folder]),
        ("sentence_bert_config.json", &[empty, half, garbage]),
        ("sparse_linear.pt", &[empty, half, garbage]),
        ("colbert_linear.pt", &[empty, half, garbage, folder]),
    ];
    for (name, damages) in cases {
        for (i, damage) in damages.iter().enumerate() {
            let model = Copy::new();
            damage(&model.path(name));
            let (code, said) = model.serve("candle");
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
        ("config.json", "xlm-roberta", "t5", "model_type is \"t5\""),
        (
            "config.json",
            "\"gelu\"",
            "\"swish\"",
            "hidden_act is \"swish\"",
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
            "module \"Dense\" is not supported",
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
        (
            "1_Pooling/config.json",
            "\"pooling_mode_mean_tokens\": false",
            "\"pooling_mode_mean_tokens\": true",
            "cls + mean",
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
        let model = Copy::new();
        let text = fs::read_to_string(model.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(model.path(file), text.replace(from, to)).unwrap();
        let (code, said) = model.serve("candle");
        assert_eq!(code, Some(1), "{from} -> {to}: {said}");
        assert!(
            said.contains(expected) && !said.contains("panic"),
            "{from} -> {to}: {said}"
        );
    }
}

/// Loads the model and embeds one sequence.
fn load(folder: &Path) -> Result<Vec<f32>, BackendError> {
    let folder = ModelFolder::open(folder).map_err(|e| BackendError::Load(e.to_string()))?;
    let options = Options {
        pooling: Pooling::Cls,
        max_sequence_tokens: 512,
        special_token_ids: vec![],
        threads: 1,
    };
    let mut backend = CandleBackend::load(&folder, options)?;
    let batch: TokenBatch = std::iter::once(&[0, 7, 100, 400, 2][..]).collect();
    Ok(backend.embed(&batch, Outputs::DENSE)?.dense.unwrap().data)
}

/// Places spread over a file: its beginning and its end densely, where its directory is, the rest thinly.
fn places(length: u64) -> impl Iterator<Item = u64> {
    let edge = length.min(4000);
    let middle = (0..40).map(move |i| i * length / 40 + 7 * i);
    (0..edge)
        .step_by(23)
        .chain((length - edge..length).step_by(19))
        .chain(middle.filter(move |at| *at < length))
}

#[test]
fn flipped_bits_in_a_checkpoint_are_an_error_or_harmless() {
    let model = Copy::new();
    let path = model.path("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    let expected = load(model.0.path()).unwrap();
    let (mut refused, mut tried) = (0, 0);
    for at in places(whole.len() as u64) {
        let mut bytes = whole.clone();
        bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        tried += 1;
        match load(model.0.path()) {
            Ok(vector) => assert_eq!(
                vector, expected,
                "the bit at {at} changes vectors unnoticed"
            ),
            Err(BackendError::Load(message)) => {
                refused += 1;
                assert!(
                    message.contains("pytorch_model.bin")
                        || message.contains(model.0.path().to_str().unwrap()),
                    "at {at}: {message}"
                );
            }
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(
        tried > 200 && refused > tried / 3,
        "{refused} of {tried} refused"
    );
}

#[test]
fn flipped_bits_in_the_tensors_of_a_checkpoint_are_always_noticed() {
    let model = Copy::new();
    let path = model.path("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    // The word embedding is the first large tensor: its bytes are somewhere in the first quarter.
    for part in 2..9 {
        let mut bytes = whole.clone();
        bytes[whole.len() * part / 10] ^= 4;
        fs::write(&path, bytes).unwrap();
        assert!(load(model.0.path()).is_err(), "at {part}/10");
    }
}

#[test]
fn hostile_pickles_are_refused() {
    let model = Copy::new();
    let path = model.path("pytorch_model.bin");
    // A zip of one stored entry, `archive/data.pkl`.
    let zip = |pickle: &[u8]| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        writer.start_file("archive/data.pkl", stored).unwrap();
        std::io::Write::write_all(&mut writer, pickle).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let nested = [&[0x80, 2, b')'][..], &vec![0x85; 900_000], b"."].concat();
    for (pickle, expected) in [
        (&b""[..], "not a readable PyTorch checkpoint"),
        (b"garbage", "not a readable PyTorch checkpoint"),
        (&nested, "pytorch_model.bin"),
        (&[0x80; 2 << 20], "at most 1048576"),
    ] {
        fs::write(&path, zip(pickle)).unwrap();
        let error = load(model.0.path()).unwrap_err().to_string();
        assert!(
            error.contains(expected) || error.contains("word_embeddings"),
            "{error}"
        );
    }
}

#[test]
fn hostile_safetensors_headers_are_refused_without_asking_for_memory() {
    let model = Copy::new();
    fs::remove_file(model.path("pytorch_model.bin")).unwrap();
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let tensor = |shape: &str, offsets: &str| {
        header(&format!(
            "{{\"embeddings.word_embeddings.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        ))
    };
    let cases = [
        (vec![], "shorter than"),
        (vec![1, 2, 3], "shorter than"),
        (u64::MAX.to_le_bytes().to_vec(), "does not fit"),
        ((1_u64 << 40).to_le_bytes().to_vec(), "does not fit"),
        (header("not json"), "not the expected JSON"),
        (header("[]"), "not the expected JSON"),
        (header("{}"), "embeddings.word_embeddings.weight"),
        (header(&"[".repeat(10_000)), "not the expected JSON"),
        (header("{\"a\": 5}"), "tensor \"a\""),
        (
            tensor("[1000000000000,1000000000000]", "[0,4]"),
            "as its bytes",
        ),
        (tensor("[4611686018427387904,4]", "[0,0]"), "as its bytes"),
        (tensor("[268435456,64]", "[0,68719476736]"), "cut off"),
        (tensor("[1,64]", "[256,0]"), "as its bytes"),
        (
            tensor("[1,64]", "[18446744073709551359,18446744073709551615]"),
            "cut off",
        ),
        (tensor("[-1,64]", "[0,4]"), "tensor"),
    ];
    for (bytes, expected) in cases {
        fs::write(model.path("model.safetensors"), &bytes).unwrap();
        let error = load(model.0.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(model.path("model.safetensors")).unwrap();
    for (index, expected) in [
        ("{}", "weight_map"),
        (
            "{\"weight_map\": {\"a\": \"../secret.safetensors\"}}",
            "not a file beside the index",
        ),
        (
            "{\"weight_map\": {\"a\": \"/etc/passwd\"}}",
            "not a file beside the index",
        ),
        (
            "{\"weight_map\": {\"a\": \"missing.safetensors\"}}",
            "missing.safetensors",
        ),
    ] {
        fs::write(model.path("model.safetensors.index.json"), index).unwrap();
        let error = load(model.0.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn damaged_onnx_models_are_named_and_never_crash_the_program() {
    let source = converted(&tiny_bge_m3());
    let model = Copy::new();
    let folder = model.path("onnx");
    fs::create_dir(&folder).unwrap();
    let (onnx, data) = (folder.join("model.onnx"), folder.join("model.onnx_data"));
    let whole = fs::read(&source).unwrap();
    let whole_data = fs::read(source.with_file_name("model.onnx_data")).unwrap();
    let try_with = |bytes: &[u8], data_bytes: &[u8]| {
        fs::write(&onnx, bytes).unwrap();
        fs::write(&data, data_bytes).unwrap();
        model.serve("onnx")
    };
    assert_eq!(try_with(&whole, &whole_data).0, Some(0));
    let n = whole.len();
    let damaged: Vec<Vec<u8>> = vec![
        vec![],
        b"garbage".to_vec(),
        whole[..n / 2].to_vec(),
        whole[..n - 10].to_vec(),
    ];
    for bytes in damaged {
        let (code, said) = try_with(&bytes, &whole_data);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("model.onnx") && !said.contains("panic"),
            "{said}"
        );
    }
    for i in 0..24 {
        let mut bytes = whole.clone();
        bytes[i * n / 24 + 3] ^= 0x10;
        let (code, said) = try_with(&bytes, &whole_data);
        assert!(
            matches!(code, Some(0 | 1)),
            "flip {i} ended with {code:?}: {said}"
        );
        assert!(!said.contains("panic"), "{said}");
    }
    let (code, said) = try_with(&whole, &whole_data[..whole_data.len() / 2]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cut off"), "{said}");
    fs::remove_file(&data).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &data).unwrap();
    fs::write(&onnx, &whole).unwrap();
    let (code, said) = model.serve("onnx");
    assert_eq!(code, Some(1));
    assert!(said.contains("link out of the model's folder"), "{said}");
}

#[test]
fn a_server_whose_models_all_fail_exits_and_says_why() {
    let model = Copy::new();
    truncate(&model.path("pytorch_model.bin"), 1000);
    let config = tiny_config("").replace(
        &format!("{:?}", tiny_bge_m3()),
        &format!("{:?}", model.0.path()),
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
        minilm()
    );
    fs::write(model.path("test.toml"), config + &more).unwrap();
    serve(&model.path("test.toml"));
}
