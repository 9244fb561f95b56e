//! The backends, opened on a model's folder as the program opens them.

use std::path::Path;

use embedgate::TextTokenizer;
use embedgate_candle::CandleBackend;
use embedgate_core::{Backend, ModelFolder, Precision, library::LibraryPaths};
use embedgate_cpu::CpuBackend;
use embedgate_onnx::{Libraries, OnnxBackend, device::Device};
use embedgate_test_support::root;

use crate::support::{converted_in, onednn};

pub(crate) fn tokenizer(folder: &ModelFolder) -> TextTokenizer {
    TextTokenizer::load(&folder.path, folder.max_sequence_tokens, &folder.tokenizer).unwrap()
}

pub(crate) fn candle(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_candle::Options {
        special_token_ids: tokenizer(&folder).special_token_ids(),
        ..embedgate_candle::Options::on_processor(
            folder.pooling.unwrap(),
            folder.max_sequence_tokens,
            2,
        )
    };
    (
        Box::new(CandleBackend::load(&folder, options).unwrap()),
        folder,
    )
}

pub(crate) fn cpu(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    cpu_in(Precision::F32, path)
}

pub(crate) fn cpu_in(precision: Precision, path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_cpu::Options {
        pooling: folder.pooling.unwrap(),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: tokenizer(&folder).special_token_ids(),
        threads: 2,
        cores: Vec::new(),
        precision,
    };
    let library = embedgate_cpu::runtime::load(&onednn()).unwrap();
    let loaded = CpuBackend::load(&folder, library, options);
    (Box::new(loaded.unwrap()), folder)
}

pub(crate) fn onnx(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    onnx_in(Precision::F32, path)
}

pub(crate) fn onnx_in(precision: Precision, path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_onnx::Options {
        file: Some(converted_in(precision, path)),
        precision,
        libraries: Libraries {
            runtime: LibraryPaths {
                named: Some(root().join(".embedgate/lib")),
                folders: Vec::new(),
            },
            ..Libraries::default()
        },
        device: Device::Cpu,
        pooling: folder.pooling.unwrap(),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: tokenizer(&folder).special_token_ids(),
        threads: 2,
        state_folder: None,
        shares_weights: false,
    };
    (
        Box::new(OnnxBackend::load(&folder, options).unwrap()),
        folder,
    )
}
