//! Checkpoints with flipped bits and hostile headers: an error each; never a panic, hang or wrong vector.

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::{Backend, BackendError, Head, ModelFolder, Outputs, Pooling, TokenBatch};
use embedgate_test_support::ModelCopy;
use std::{fs, path::Path};

/// Loads the model and embeds one sequence.
fn load(folder: &Path) -> Result<Vec<f32>, BackendError> {
    let folder = ModelFolder::open(folder).map_err(|e| BackendError::Load(e.to_string()))?;
    let options = Options::on_processor(Pooling::CLS, 512, 1);
    let mut backend = CandleBackend::load(&folder, options)?;
    let batch: TokenBatch = std::iter::once(&[0, 7, 100, 400, 2][..]).collect();
    let results = backend.embed(&batch, Outputs::DENSE)?;
    Ok(results.vectors(Head::Dense).unwrap().data.clone())
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
    let model = ModelCopy::new();
    let path = model.path("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    let expected = load(model.folder()).unwrap();
    let (mut refused, mut tried) = (0, 0);
    for at in places(whole.len() as u64) {
        let mut bytes = whole.clone();
        bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        tried += 1;
        match load(model.folder()) {
            Ok(vector) => assert_eq!(
                vector, expected,
                "the bit at {at} changes vectors unnoticed"
            ),
            Err(BackendError::Load(message)) => {
                refused += 1;
                assert!(
                    message.contains("pytorch_model.bin")
                        || message.contains(model.folder().to_str().unwrap()),
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
    let model = ModelCopy::new();
    let path = model.path("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    // The word embedding is the first large tensor: its bytes are somewhere in the first quarter.
    for part in 2..9 {
        let mut bytes = whole.clone();
        bytes[whole.len() * part / 10] ^= 4;
        fs::write(&path, bytes).unwrap();
        assert!(load(model.folder()).is_err(), "at {part}/10");
    }
}

#[test]
fn hostile_pickles_are_refused() {
    let model = ModelCopy::new();
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
        let error = load(model.folder()).unwrap_err().to_string();
        assert!(
            error.contains(expected) || error.contains("word_embeddings"),
            "{error}"
        );
    }
}

#[test]
fn hostile_safetensors_headers_are_refused_without_asking_for_memory() {
    let model = ModelCopy::new();
    fs::remove_file(model.path("pytorch_model.bin")).unwrap();
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let tensor = |shape: &str, offsets: &str| {
        header(&format!(
            "{{\"embeddings.word_embeddings.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        ))
    };
    let cases = [
        (vec![], "is empty"),
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
        let error = load(model.folder()).unwrap_err().to_string();
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
        let error = load(model.folder()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The name of the vectors of tokens.
const WORDS: &str = "embeddings.word_embeddings.weight";

#[test]
fn a_number_that_is_none_is_named_with_its_tensor() {
    let model = ModelCopy::new();
    let path = model.path("sparse_linear.pt");
    fs::remove_file(&path).unwrap();
    fs::remove_file(model.path("colbert_linear.pt")).unwrap();
    let source = embedgate_weights::Weights::open(model.folder(), WORDS).unwrap();
    let names = source.names();
    let write = |bad: &str, value: f32| {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = names
            .iter()
            .map(|(name, shape)| {
                let mut values = source.values(name, shape).unwrap();
                if name == bad {
                    values[5] = value;
                }
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                (name.clone(), shape.clone(), bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name, view.unwrap())
        });
        let file = model.path("model.safetensors");
        safetensors::serialize_to_file(views, None, &file).unwrap();
        load(model.folder())
    };
    for bad in [
        "embeddings.word_embeddings.weight",
        "encoder.layer.1.output.dense.bias",
    ] {
        let error = write(bad, f32::NAN).unwrap_err().to_string();
        assert!(
            error.contains(&format!("tensor \"{bad}\" holds NaN")),
            "{error}"
        );
        let error = write(bad, f32::INFINITY).unwrap_err().to_string();
        assert!(error.contains("holds inf at place 5"), "{error}");
    }
    assert!(write("", 0.0).is_ok());
}
