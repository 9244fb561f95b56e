//! ONNX models that are damaged.

use crate::support::converted;
use embedgate_test_support::{ModelCopy, tiny_bge_m3};
use std::fs;

#[test]
fn damaged_onnx_models_are_named_and_never_crash_the_program() {
    let source = converted(&tiny_bge_m3());
    let model = ModelCopy::new();
    let folder = model.path("onnx");
    fs::create_dir(&folder).unwrap();
    let (onnx, data) = (folder.join("model.onnx"), folder.join("model.onnx_data"));
    let whole = fs::read(&source).unwrap();
    let whole_data = fs::read(source.with_file_name("model.onnx_data")).unwrap();
    let try_with = |bytes: &[u8], data_bytes: &[u8]| {
        fs::write(&onnx, bytes).unwrap();
        fs::write(&data, data_bytes).unwrap();
        model.load("onnx")
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
    let (code, said) = model.load("onnx");
    assert_eq!(code, Some(1));
    assert!(said.contains("link out of the model's folder"), "{said}");
}
