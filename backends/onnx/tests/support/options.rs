//! The options of tests: on the processor, by the library of the setup.

use std::path::{Path, PathBuf};

use embedgate_core::{Pooling, Precision, library::LibraryPaths};
use embedgate_onnx::{Libraries, Options, device::Device};

/// For a model file in this precision, with one thread and short sequences.
pub(crate) fn on_processor(file: PathBuf, precision: Precision) -> Options {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let runtime = LibraryPaths {
        named: Some(root.join(".embedgate/lib")),
        folders: Vec::new(),
    };
    Options {
        file: Some(file),
        device: Device::Cpu,
        precision,
        libraries: Libraries {
            runtime,
            ..Libraries::default()
        },
        pooling: Pooling::CLS,
        max_sequence_tokens: 64,
        special_token_ids: Vec::new(),
        threads: 1,
        state_folder: None,
        shares_weights: false,
    }
}
