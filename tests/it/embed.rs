//! `embedgate embed`: what it prints and writes.

use embedgate_test_support::{config_file, embedgate, max_difference, run, tiny_config};
use serde_json::Value;
use std::{fs, io::Write, path::Path, process::Stdio};

/// The configuration with a backend that says nothing where there is no library of the setup.
fn candle(config: &str) -> String {
    config.replace("{ threads = 1 }", "{ type = \"candle\", threads = 1 }")
}

#[test]
fn embed_turns_lines_into_json_lines() {
    let file = config_file(&candle(&tiny_config("max_length = 16")));
    let texts = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        texts.path(),
        format!("hello world\n\n你好\n{}\n", "long ".repeat(50)),
    )
    .unwrap();
    let mut command = embedgate();
    command
        .args(["embed", "--model", "BAAI/tiny", "--config"])
        .arg(file.path())
        .arg(texts.path());
    let (code, out, errors) = run(&mut command);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "an empty line is a text too");
    assert_eq!(
        (lines[0]["tokens"].as_u64(), lines[1]["tokens"].as_u64()),
        (Some(7), Some(2))
    );
    assert_eq!(lines[3]["tokens"], 16);
    assert!(lines[3]["truncated_from"].as_u64() > Some(16));

    // The same from standard input, cut.
    let mut command = embedgate();
    command
        .args(["embed", "--dimensions", "8", "--config"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello world")
        .unwrap();
    let cut: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let cut: Vec<f32> = serde_json::from_value(cut["embedding"].clone()).unwrap();
    let whole: Vec<f32> = serde_json::from_value(lines[0]["embedding"].clone()).unwrap();
    let length = whole[..8].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(
        max_difference(
            &cut,
            &whole[..8].iter().map(|x| x / length).collect::<Vec<_>>()
        ) < 1e-5
    );
}

#[test]
fn embed_names_what_is_missing() {
    let file = config_file(&tiny_config(""));
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--model", "huge", "--config"])
        .arg(file.path()));
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("\"huge\"") && errors.contains("tiny"),
        "{errors}"
    );
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--config"])
        .arg(file.path())
        .arg("/no/such/file"));
    assert_eq!(code, Some(1));
    assert!(errors.contains("/no/such/file"), "{errors}");
    let binary = tempfile::NamedTempFile::new().unwrap();
    fs::write(binary.path(), b"ok\n\xff\xfe\n").unwrap();
    let (code, _, errors) = run(embedgate()
        .args(["embed", "--config"])
        .arg(file.path())
        .arg(binary.path()));
    assert_eq!(code, Some(1));
    assert!(errors.contains("line 2"), "{errors}");
}

#[test]
fn embed_prints_what_is_asked_of_each_text() {
    let folder = tempfile::tempdir().unwrap();
    let (config, texts) = (folder.path().join("c.toml"), folder.path().join("texts"));
    std::fs::write(&config, tiny_config("")).unwrap();
    std::fs::write(&texts, "hello world\na\n").unwrap();
    let (code, out, errors) = run(embedgate()
        .arg("--config")
        .arg(&config)
        .args(["embed", "--outputs", "sparse,colbert"])
        .arg(&texts));
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line.get("embedding").is_none(), "{line}");
        let sparse = &line["sparse_embedding"];
        let n = sparse["indices"].as_array().unwrap().len();
        assert!(
            n > 0 && sparse["values"].as_array().unwrap().len() == n,
            "{line}"
        );
        let rows = line["colbert_embedding"].as_array().unwrap();
        let n_tokens = line["tokens"].as_u64().unwrap();
        assert_eq!(rows.len() as u64, n_tokens - 1);
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 64));
    }
}

/// Runs `embed` on the texts of a folder, with all outputs; returns what it printed.
fn embed_all_outputs(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, errors) = run(embedgate()
        .current_dir(folder)
        .args([
            "--config",
            "c.toml",
            "embed",
            "--outputs",
            "dense,sparse,colbert",
        ])
        .args(arguments)
        .arg("texts"));
    assert_eq!(code, Some(0), "{errors}");
    out
}

#[test]
fn embed_writes_the_same_as_json_lines_parquet_and_npz() {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::{ListAccessor, RowAccessor},
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), tiny_config("max_length = 16")).unwrap();
    // An empty text has no lexical weights.
    let texts = format!("hello world\n\n你好\n{}\n", "long ".repeat(50));
    fs::write(folder.join("texts"), texts).unwrap();
    let printed = embed_all_outputs(folder, &[]);
    for file in ["o.jsonl", "o.parquet", "o.npz"] {
        assert_eq!(embed_all_outputs(folder, &["--output", file]), "");
    }
    assert_eq!(fs::read_to_string(folder.join("o.jsonl")).unwrap(), printed);
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let ids = |value: &Value| -> Vec<i32> { serde_json::from_value(value.clone()).unwrap() };

    let file =
        SerializedFileReader::new(fs::File::open(folder.join("o.parquet")).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap();
    let mut n = 0;
    for (row, line) in rows.zip(&lines) {
        let row = row.unwrap();
        let floats = |i: usize| -> Vec<f32> {
            let list = row.get_list(i).unwrap();
            (0..list.len())
                .map(|j| list.get_float(j).unwrap())
                .collect()
        };
        assert_eq!(row.get_long(0).ok(), line["tokens"].as_i64());
        assert_eq!(row.get_long(1).ok(), line["truncated_from"].as_i64());
        assert_eq!(floats(2), numbers(&line["embedding"]));
        let found = row.get_list(3).unwrap();
        let found: Vec<i32> = (0..found.len())
            .map(|j| found.get_int(j).unwrap())
            .collect();
        assert_eq!(found, ids(&line["sparse_embedding"]["indices"]));
        assert_eq!(floats(4), numbers(&line["sparse_embedding"]["values"]));
        let vectors = row.get_list(5).unwrap();
        let expected = line["colbert_embedding"].as_array().unwrap();
        assert_eq!(vectors.len(), expected.len());
        for (j, expected) in expected.iter().enumerate() {
            let vector = vectors.get_list(j).unwrap();
            let vector: Vec<f32> = (0..vector.len())
                .map(|k| vector.get_float(k).unwrap())
                .collect();
            assert_eq!(vector, numbers(expected));
        }
        n += 1;
    }
    assert_eq!(n, lines.len());

    let mut arrays = zip::ZipArchive::new(fs::File::open(folder.join("o.npz")).unwrap()).unwrap();
    let mut floats = |name: &str| -> (Vec<u64>, Vec<f32>) {
        let array = npyz::NpyFile::new(arrays.by_name(name).unwrap()).unwrap();
        (array.shape().to_vec(), array.into_vec().unwrap())
    };
    let (shape, dense) = floats("embedding.npy");
    assert_eq!(shape, [4, 64]);
    let (colbert_shape, colbert) = floats("colbert_embedding.npy");
    let (_, weights) = floats("sparse_values.npy");
    let mut whole = |name: &str| -> Vec<i64> {
        npyz::NpyFile::new(arrays.by_name(name).unwrap())
            .unwrap()
            .into_vec()
            .unwrap()
    };
    let [tokens, full, sparse_offsets, sparse_ids, colbert_offsets] = [
        "tokens",
        "tokens_full",
        "sparse_offsets",
        "sparse_indices",
        "colbert_offsets",
    ]
    .map(|name| whole(&format!("{name}.npy")));
    let from_to = |offsets: &[i64], i: usize| {
        let at = |i: usize| usize::try_from(offsets[i]).unwrap();
        at(i)..at(i + 1)
    };
    assert_eq!(colbert_shape, [*colbert_offsets.last().unwrap() as u64, 64]);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(Some(tokens[i]), line["tokens"].as_i64());
        assert_eq!(
            Some(full[i]),
            line["truncated_from"].as_i64().or(Some(tokens[i]))
        );
        assert_eq!(dense[i * 64..(i + 1) * 64], numbers(&line["embedding"]));
        let ends = from_to(&sparse_offsets, i);
        let expected: Vec<i64> = ids(&line["sparse_embedding"]["indices"])
            .into_iter()
            .map(i64::from)
            .collect();
        assert_eq!(sparse_ids[ends.clone()], expected);
        assert_eq!(weights[ends], numbers(&line["sparse_embedding"]["values"]));
        let rows = from_to(&colbert_offsets, i);
        let expected: Vec<f32> = line["colbert_embedding"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .collect();
        assert_eq!(colbert[rows.start * 64..rows.end * 64], expected);
    }
}

#[test]
fn embed_leaves_no_half_file_and_says_what_is_wrong_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), tiny_config("")).unwrap();
    fs::write(folder.join("texts"), b"fine\n\xff\xfe\n").unwrap();
    fs::write(folder.join("o.npz"), "what was there").unwrap();
    let embed = |arguments: &[&str]| {
        run(embedgate()
            .current_dir(folder)
            .args(["--config", "c.toml", "embed", "texts"])
            .args(arguments))
    };
    let cases: [(&[&str], &str); 5] = [
        (&["--output", "o.npz"], "line 2"),
        (&["--output", "o.txt"], ".parquet"),
        (&["--format", "parquet"], "--output FILE"),
        (&["--output", "no/such/o.npz"], "no/such/o.npz"),
        (&["--output", ".", "--format", "npz"], "not a regular file"),
    ];
    for (arguments, expected) in cases {
        let (code, _, errors) = embed(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    assert_eq!(fs::read(folder.join("o.npz")).unwrap(), b"what was there");
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        3,
        "nothing is left behind"
    );
}
