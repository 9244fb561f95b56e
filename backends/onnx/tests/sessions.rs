//! Sessions on ONNX Runtime, with a converted model of random weights.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/options.rs"]
mod options;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use embedgate_core::{Backend, Head, Matrix, ModelFolder, Outputs, Precision, TokenBatch};
use embedgate_onnx::{
    OnnxBackend, Options, bytes_overflow,
    convert::{self, ConvertError, Files, Parts, Target, Variant},
};

use self::options::on_processor;

/// Pseudo-random numbers as the weights of the tiny bge-m3, converted.
fn convert_random(folder: &ModelFolder, variant: Variant, to: &Path) -> PathBuf {
    let mut state = 1_u32;
    let mut read =
        |_: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> std::io::Result<()>| {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
            use_them(&values).map_err(|e| ConvertError::Weights(e.into()))
        };
    let parts = Parts {
        encoder: &folder.encoder,
        heads: Outputs::default(),
    };
    convert::write(to, variant, parts, &mut read).unwrap();
    to.join(Files::of(variant).unwrap().model)
}

/// A folder, its converted model, and the options to load it.
fn tiny(precision: Precision) -> (ModelFolder, tempfile::TempDir, Options) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = ModelFolder::open(&root.join("tests/fixtures/tiny-bge-m3")).unwrap();
    let written = tempfile::tempdir().unwrap();
    let variant = Variant::of_processor(precision);
    let file = convert_random(&folder, variant, written.path());
    (folder, written, on_processor(file, precision))
}

fn embed(backend: &mut OnnxBackend) -> Matrix {
    let batch: TokenBatch = [[5, 6, 7].as_slice(), &[9; 20]].into_iter().collect();
    let embedded = backend.embed(&batch, Outputs::DENSE).unwrap();
    embedded.vectors(Head::Dense).unwrap().clone()
}

/// The family of a model is of no interest where its ONNX file is run: its own weights are what needs a description.
#[test]
fn a_model_of_a_family_that_is_not_known_runs_from_its_onnx_file() {
    let (folder, _written, options) = tiny(Precision::F32);
    let expected = embed(&mut OnnxBackend::load(&folder, options.clone()).unwrap());
    let other = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder.path.join("config.json")).unwrap();
    let text = text.replace("xlm-roberta", "funnel");
    std::fs::write(other.path().join("config.json"), text).unwrap();
    let other = ModelFolder::open(other.path()).unwrap();
    let why = other.check_description().unwrap_err().to_string();
    assert!(
        why.contains("model_type is \"funnel\", supported are bert"),
        "{why}"
    );
    assert_eq!(
        embed(&mut OnnxBackend::load(&other, options).unwrap()),
        expected
    );
}

/// Cards have one form of attention, of all heads at once or in groups where the scores of the longest sequence are too many.
#[test]
fn models_for_cards_give_what_those_for_the_processor_give() {
    let (mut folder, _written, options) = tiny(Precision::F32);
    let expected = embed(&mut OnnxBackend::load(&folder, options.clone()).unwrap());
    let usual = folder.encoder.max_sequence_tokens;
    for (positions, precision, least) in [
        (None, Precision::F32, 0.999_999),
        (Some(16_000), Precision::F32, 0.999_999),
        (None, Precision::F16, 0.999),
        (Some(24_000), Precision::F16, 0.999),
    ] {
        folder.encoder.max_sequence_tokens = positions.unwrap_or(usual);
        let written = tempfile::tempdir().unwrap();
        let variant = Variant {
            target: Target::Gpu,
            precision,
        };
        let options = Options {
            file: Some(convert_random(&folder, variant, written.path())),
            precision,
            ..options.clone()
        };
        let graph = fs::read(options.file.as_ref().unwrap()).unwrap();
        let is_grouped = graph.windows(6).any(|word| word == b"Concat");
        assert_eq!(is_grouped, positions.is_some());
        // Numbers follow from their order, so that another table of positions means another model.
        let expected = match positions {
            None => expected.clone(),
            Some(_) => {
                let variant = Variant::of_processor(Precision::F32);
                let written = tempfile::tempdir().unwrap();
                let options = Options {
                    file: Some(convert_random(&folder, variant, written.path())),
                    precision: Precision::F32,
                    ..options.clone()
                };
                embed(&mut OnnxBackend::load(&folder, options).unwrap())
            }
        };
        let got = embed(&mut OnnxBackend::load(&folder, options).unwrap());
        for i in 0..2 {
            let (a, b) = (got.row(i), expected.row(i));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let near = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(near > least, "{positions:?} {precision}: {near}");
        }
    }
}

/// Bytes without a sign, which processors without VNNI get, stand for the same numbers. Such a processor cannot run signed
/// ones right, so that there the reference is f32.
#[test]
fn int8_is_the_same_where_bytes_overflow() {
    let (folder, _written, options) = tiny(Precision::Int8);
    let embed_for = |bytes_overflow, options: &Options| {
        let backend = OnnxBackend::load_for(bytes_overflow, &folder, options.clone());
        embed(&mut backend.unwrap())
    };
    let unsigned = embed_for(true, &options);
    if bytes_overflow() {
        let (_, _written, exact) = tiny(Precision::F32);
        let expected = embed_for(true, &exact);
        for i in 0..2 {
            let (a, b) = (unsigned.row(i), expected.row(i));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            let near = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(near > 0.95, "{near}");
        }
        return;
    }
    let signed = embed_for(false, &options);
    for i in 0..2 {
        let largest = signed
            .row(i)
            .iter()
            .fold(0.0_f32, |all, x| all.max(x.abs()));
        assert!(largest > 0.0);
        for (a, b) in signed.row(i).iter().zip(unsigned.row(i)) {
            assert!((a - b).abs() <= largest / 50.0, "{a} {b}");
        }
    }
}

/// The folders with packed weights.
fn packed_in(kept_in: &Path) -> Vec<PathBuf> {
    let folders = |of: &Path| -> Vec<PathBuf> {
        let entries = of.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let mut models = folders(&kept_in.join("onnx"));
    models.retain(|folder| !folder.ends_with("private"));
    models.iter().flat_map(|model| folders(model)).collect()
}

/// Returns the offset in its file at which a line of `/proc/self/maps` ends.
fn mapped_end(line: &str) -> u64 {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (start, end) = fields[0].split_once('-').unwrap();
    hex(fields[2]) + hex(end) - hex(start)
}

#[test]
fn sessions_that_share_their_weights_give_what_those_with_their_own_give() {
    for precision in [Precision::F32, Precision::Int8] {
        let (folder, _written, own) = tiny(precision);
        let kept_in = tempfile::tempdir().unwrap();
        let shared = Options {
            state_folder: Some(kept_in.path().to_owned()),
            shares_weights: true,
            ..own.clone()
        };
        let load = |options: &Options| OnnxBackend::load(&folder, options.clone()).unwrap();
        let expected = embed(&mut load(&own));
        let mut replicas = [load(&shared), load(&shared)];
        for replica in &mut replicas {
            assert_eq!(embed(replica), expected, "{precision}");
        }
        let packed = packed_in(kept_in.path());
        assert_eq!(packed.len(), 1, "{packed:?}");
        let model = fs::read(packed[0].join("model.onnx")).unwrap();
        let names_packed = |bytes: &[u8]| bytes.windows(11).any(|b| b == b"prepacked_0");
        assert!(names_packed(&model), "{precision}: nothing is packed");
        let data = packed[0].join("model.onnx_data");
        if cfg!(target_os = "linux") {
            // Both map one copy; what is packed is at the file's end.
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let copies = kept_in.path().canonicalize().unwrap().join("onnx/private");
            let mapped = maps.lines().filter_map(|line| {
                let path = &line[line.find(copies.to_str().unwrap())?..];
                Some((path, mapped_end(line)))
            });
            let (paths, ends): (BTreeSet<&str>, Vec<u64>) = mapped.unzip();
            assert_eq!(paths.len(), 1, "{precision}: {paths:?}");
            let (end, length) = (ends.iter().max(), data.metadata().unwrap().len());
            assert!(end >= Some(&length), "{precision}: {end:?} of {length}");
        }
        drop(replicas);

        // A file that was cut off is made again: what is packed is at its end.
        let length = data.metadata().unwrap().len();
        let file = fs::File::options().write(true).open(&data).unwrap();
        file.set_len(length - 1).unwrap();
        assert_eq!(embed(&mut load(&shared)), expected);
        assert_eq!(data.metadata().unwrap().len(), length);
    }
}

#[test]
fn packed_weights_of_another_state_of_the_model_are_replaced() {
    let (folder, _written, mut options) = tiny(Precision::F32);
    let kept_in = tempfile::tempdir().unwrap();
    options.state_folder = Some(kept_in.path().to_owned());
    options.shares_weights = true;
    let load = || OnnxBackend::load(&folder, options.clone()).unwrap();
    load();
    let before = packed_in(kept_in.path());
    let written = || {
        before[0]
            .join("model.onnx_data")
            .metadata()
            .unwrap()
            .modified()
            .unwrap()
    };
    let first_written = written();
    load();
    assert_eq!(packed_in(kept_in.path()), before);
    assert_eq!(written(), first_written, "packed again without need");
    let model = fs::File::options()
        .write(true)
        .open(options.file.as_ref().unwrap());
    model.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    load();
    let after = packed_in(kept_in.path());
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(after, before);
}

#[test]
fn sessions_have_their_own_weights_where_none_can_be_kept() {
    let (folder, written, mut options) = tiny(Precision::F32);
    let expected = embed(&mut OnnxBackend::load(&folder, options.clone()).unwrap());
    let no_folder = written.path().join("file");
    fs::write(&no_folder, "").unwrap();
    options.state_folder = Some(no_folder);
    options.shares_weights = true;
    assert_eq!(
        embed(&mut OnnxBackend::load(&folder, options).unwrap()),
        expected
    );
}

/// A mapped file that is cut ends a process by SIGBUS, and one that is overwritten gives other vectors.
#[test]
fn files_that_are_overwritten_while_they_are_served_change_nothing() {
    let everything_in = |folder: &Path| -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files
    };
    for shares_weights in [false, true] {
        let (folder, written, mut options) = tiny(Precision::F32);
        let kept_in = tempfile::tempdir().unwrap();
        options.state_folder = Some(kept_in.path().to_owned());
        options.shares_weights = shares_weights;
        let mut backend = OnnxBackend::load(&folder, options).unwrap();
        let expected = embed(&mut backend);
        let mut files = everything_in(written.path());
        files.extend(
            packed_in(kept_in.path())
                .iter()
                .flat_map(|f| everything_in(f)),
        );
        assert_eq!(files.len(), if shares_weights { 4 } else { 2 });
        for file in &files {
            let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
            fs::write(file, vec![0x41; length]).unwrap();
        }
        assert_eq!(embed(&mut backend), expected, "overwritten");
        for file in &files {
            fs::write(file, "").unwrap();
        }
        assert_eq!(embed(&mut backend), expected, "cut");
        drop(backend);
        let copies = everything_in(&kept_in.path().join("onnx/private"));
        assert_eq!(copies, [kept_in.path().join("onnx/private/lock")]);
    }
}
