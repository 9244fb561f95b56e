//! The files that `scripts/setup` fetches, and those that a test run makes of them once.

use std::{path::Path, path::PathBuf, sync::OnceLock};

use embedgate_core::{Precision, library::LibraryPaths};
use embedgate_onnx::convert::{Files, Variant};
use embedgate_test_support::{embedgate, root, run, tiny_bge_m3};

/// The real all-MiniLM-L6-v2.
pub(crate) fn minilm() -> PathBuf {
    let path = root().join("models/all-MiniLM-L6-v2");
    assert!(
        path.join("config.json").exists(),
        "{} is missing: run scripts/setup",
        path.display()
    );
    path
}

/// oneDNN.
pub(crate) fn onednn() -> LibraryPaths {
    LibraryPaths {
        named: Some(root().join(".embedgate/onednn")),
        folders: Vec::new(),
    }
}

/// True where this processor has the products that the cpu backend needs for a precision.
pub(crate) fn runs(precision: Precision) -> bool {
    let library = embedgate_cpu::runtime::load(&onednn()).unwrap();
    embedgate_cpu::runs(library, precision)
}

/// The ONNX variant of a model in f32, written once a test run by the program itself.
pub(crate) fn converted(model: &Path) -> PathBuf {
    converted_in(Precision::F32, model)
}

/// The ONNX variant of a model in a precision, written once a test run.
pub(crate) fn converted_in(precision: Precision, model: &Path) -> PathBuf {
    static FOLDERS: [OnceLock<tempfile::TempDir>; 4] = [const { OnceLock::new() }; 4];
    let slot = usize::from(model == tiny_bge_m3()) * 2 + usize::from(precision == Precision::F32);
    let folder = FOLDERS[slot].get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = embedgate();
        command
            .arg("convert")
            .arg(model)
            .arg("--output")
            .arg(folder.path().join("onnx"))
            .args(["--precision", &precision.to_string()]);
        let (code, _, errors) = run(&mut command);
        assert_eq!(code, Some(0), "{errors}");
        folder
    });
    let name = Files::of(Variant::of_processor(precision)).unwrap().model;
    folder.path().join("onnx").join(name)
}

/// A folder of `.embedgate` that `scripts/test` fills.
pub(crate) fn installed(name: &str) -> PathBuf {
    let path = root().join(".embedgate").join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test",
        path.display()
    );
    path
}
