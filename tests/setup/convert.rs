//! `embedgate convert`: what it writes.

use embedgate_test_support::{config_file, copy, embedgate, names, run, tiny_bge_m3, tiny_config};
use std::fs;

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
fn check_names_the_command_where_there_is_no_onnx_model() {
    let config = tiny_config("").replace("{ threads = 1 }", "{ type = \"onnx\" }");
    let file = config_file(&config);
    let (code, _, errors) = run(embedgate().arg("check").arg(file.path()));
    assert_eq!(code, Some(78), "{errors}");
    assert!(errors.contains("embedgate convert"), "{errors}");
}

#[test]
fn int8_is_written_beside_f32_and_loads_only_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&tiny_bge_m3(), &model);
    let convert = |precision: &str| {
        let args = ["--precision", precision];
        run(embedgate().arg("convert").arg(&model).args(args))
    };
    let file = folder.path().join("embedgate.toml");
    let embed = |backend: &str| {
        let config =
            tiny_config("").replace(&format!("{:?}", tiny_bge_m3()), &format!("{model:?}"));
        let backend = format!("backend = {{ type = \"onnx\", {backend} }}");
        std::fs::write(&file, config.replace("backend = { threads = 1 }", &backend)).unwrap();
        let (code, _, log) = run(embedgate().args(["embed", "--config"]).arg(&file));
        (code, log)
    };
    let int8 = "precision = \"int8\"";
    let (code, log) = embed(int8);
    assert_eq!(code, Some(1));
    assert!(
        log.contains("has no model_int8.onnx, neither in onnx/")
            && log.contains("--precision int8"),
        "{log}"
    );
    let (code, _, log) = convert("int8");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("both agree, with cosines of 0.99"), "{log}");
    let onnx = model.join("onnx");
    assert_eq!(names(&onnx), ["model_int8.onnx", "model_int8.onnx_data"]);
    let (code, _, log) = convert("int8");
    assert_eq!(code, Some(1));
    assert!(log.contains("model_int8.onnx is there already"), "{log}");
    assert_eq!(convert("f32").0, Some(0), "the other is not in its way");
    let size = |name: &str| fs::metadata(onnx.join(name)).unwrap().len();
    assert!(size("model_int8.onnx_data") < size("model.onnx_data"));

    assert_eq!(embed(int8).0, Some(0));
    let named = format!("file = {:?}", onnx.join("model_int8.onnx"));
    let (code, log) = embed(&named);
    assert_eq!(code, Some(1));
    assert!(log.contains("set backend.precision = \"int8\""), "{log}");
    assert_eq!(embed(&format!("{named}, {int8}")).0, Some(0));
    let (code, log) = embed("precision = \"bf16\"");
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains("must be \"f32\", \"int8\" or \"auto\""),
        "{log}"
    );
}
