//! `embedgate convert`: what it writes, and what it leaves behind when it cannot.

use std::fs;

use crate::support::{embedgate, minilm, root, run, tiny_bge_m3};

fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn it_writes_model_and_data_checks_them_and_replaces_only_when_told() {
    let output = tempfile::tempdir().unwrap();
    let target = output.path().join("onnx");
    let convert = |more: &[&str]| {
        run(embedgate()
            .arg("convert")
            .arg(tiny_bge_m3())
            .arg("--output")
            .arg(&target)
            .args(more))
    };
    let (code, _, log) = convert(&[]);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("both agree within"), "{log}");
    assert_eq!(names(&target), ["model.onnx", "model.onnx_data"]);
    assert_eq!(names(output.path()), ["onnx"], "nothing else stays");
    let (code, _, log) = convert(&[]);
    assert_eq!(code, Some(1));
    assert!(log.contains("--force"), "{log}");
    let before = fs::read(target.join("model.onnx")).unwrap();
    assert_eq!(convert(&["--force"]).0, Some(0));
    assert!(
        fs::read(target.join("model.onnx")).unwrap() == before,
        "the same weights give the same file"
    );
}

#[test]
fn without_onnx_runtime_nothing_is_written_and_the_way_out_is_said() {
    let output = tempfile::tempdir().unwrap();
    let mut command = embedgate();
    command
        .arg("convert")
        .arg(minilm())
        .arg("--output")
        .arg(output.path().join("onnx"))
        .env("ORT_DYLIB_PATH", "/nowhere");
    let (code, _, log) = run(&mut command);
    assert_eq!(code, Some(1));
    assert!(
        log.contains("/nowhere") && log.contains("scripts/setup"),
        "{log}"
    );
    assert_eq!(names(output.path()), Vec::<String>::new());
}

#[test]
fn a_folder_that_is_no_model_is_named() {
    let empty = tempfile::tempdir().unwrap();
    for (folder, expected) in [
        (empty.path(), "config.json"),
        (std::path::Path::new("/nowhere"), "/nowhere"),
    ] {
        let (code, _, log) = run(embedgate().arg("convert").arg(folder));
        assert_eq!(code, Some(1));
        assert!(log.contains(expected), "{log}");
    }
    assert!(
        root()
            .join("tests/fixtures/tiny-bge-m3")
            .read_dir()
            .unwrap()
            .all(|e| e.unwrap().file_name() != "onnx")
    );
}
