//! `embedgate bench-backend` on oneDNN.

use crate::support::runs;
use embedgate_core::Precision;
use embedgate_test_support::{embedgate, run, tiny_config};

#[test]
fn a_backend_is_measured_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("embedgate.toml");
    std::fs::write(&file, tiny_config("")).unwrap();
    let bench = |args: &[&str]| {
        let mut command = embedgate();
        command.args(["bench-backend", "--config"]).arg(&file);
        run(command.args(args))
    };
    let (code, out, errors) = bench(&["-n", "5", "--words", "3", "--rounds", "1"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        out.contains("5 texts") && out.contains("one text at a time"),
        "{out}"
    );
    let (mut asked, mut coarser) = (vec!["f32"], Vec::new());
    for (name, precision, least) in [
        ("bf16", Precision::Bf16, 0.9999),
        ("int8", Precision::Int8, 0.99),
    ] {
        if runs(precision) {
            asked.push(name);
            coarser.push((name, least));
        } else {
            let (code, _, errors) = bench(&["-p", name]);
            let expected = format!("oneDNN cannot run a model in {name} on this processor");
            assert!(code == Some(1) && errors.contains(&expected), "{errors}");
        }
    }
    let ordered = asked.clone();
    asked.rotate_left(1);
    let (code, out, errors) = bench(&["-p", &asked.join(","), "--rounds", "2"]);
    assert_eq!(code, Some(0), "{errors}");
    // f32 comes first, whatever the order, and the rest is compared with it.
    let cells = |row: &str| -> Vec<String> {
        let line = out.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no {row} in {out}"));
        let cells = line[row.len()..].split_whitespace();
        cells.map(str::to_owned).collect()
    };
    assert_eq!(cells("sequences x tokens"), ordered);
    let number = |text: &String| text.parse::<f64>().unwrap();
    assert!(cells("products, GFLOP/s").iter().all(|c| number(c) > 0.1));
    assert!(number(&cells("8 x 128")[0]) > 1.0, "{out}");
    for (precision, least) in coarser {
        let cosines = cells(precision);
        let (mean, worst) = (number(&cosines[0]), number(&cosines[1]));
        assert!(worst > least && worst <= mean && mean < 1.0, "{out}");
    }
    for (args, expected) in [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--model", "other"], "no such model"),
    ] {
        let (code, _, errors) = bench(&args);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
    let (code, _, errors) = bench(&["-p", "f32,bf16", "--queries", "144", "--longest", "16"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("--queries must be 1 to 143"), "{errors}");
    let with_backend = |backend: &str| {
        let config = tiny_config("").replace("threads = 1", backend);
        std::fs::write(&file, config).unwrap();
        let (code, _, errors) = bench(&["-p", "f32,bf16"]);
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    for (backend, expected) in [
        ("type = \"candle\"", "candle has one"),
        ("type = \"onnx\"", "--precision f32,int8"),
        (
            "type = \"onnx\", file = \"a.onnx\"",
            "leave out backend.file",
        ),
    ] {
        let errors = with_backend(backend);
        assert!(errors.contains(expected), "{errors}");
    }
}
