//! `embedgate convert` where it cannot begin.

use embedgate_test_support::{config_file, embedgate, names, root, run, tiny_bge_m3, tiny_config};

#[test]
fn a_configuration_that_is_named_is_read() {
    let convert = |config: &std::path::Path| {
        let mut command = embedgate();
        command
            .arg("--config")
            .arg(config)
            .arg("convert")
            .arg(tiny_bge_m3());
        let output = tempfile::tempdir().unwrap();
        run(command.arg("--output").arg(output.path().join("onnx")))
    };
    let (code, _, said) = convert("/nowhere/embedgate.toml".as_ref());
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("/nowhere/embedgate.toml"), "{said}");
    // Without a word on who may use a server.
    let text = tiny_config("[onnxruntime]\nlibrary = \"/nowhere/libonnxruntime.so\"");
    let file = config_file(&text.replace("[auth]\nmode = \"none\"\n", ""));
    let (code, _, said) = convert(file.path());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nowhere/libonnxruntime.so"), "{said}");
}

#[test]
fn without_onnx_runtime_nothing_is_written_and_the_way_out_is_said() {
    let output = tempfile::tempdir().unwrap();
    let mut command = embedgate();
    command
        .arg("convert")
        .arg(tiny_bge_m3())
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
