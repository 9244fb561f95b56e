//! `embedgate embed`: what it prints and writes.

use embedgate_test_support::{
    SAME, config_file, embedgate, max_difference, numbers, run, tiny_config,
};
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
    assert!(errors.contains("row 2"), "{errors}");
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
    let cases: [(&[&str], &str); 7] = [
        (&["--output", "o.npz"], "o.npz is there already: --force"),
        (&["--output", "o.npz", "--force"], "row 2"),
        (&["--output", "new.npz"], "row 2"),
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

/// A folder with an input, and the configuration of the tiny model.
struct Import {
    folder: tempfile::TempDir,
    config: tempfile::NamedTempFile,
}

impl Import {
    fn new(input: &str, text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(input), text).unwrap();
        let config = config_file(&candle(&tiny_config("")));
        Self { folder, config }
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = embedgate();
        command.current_dir(self.folder.path());
        run(command
            .args(["embed", "--config"])
            .arg(self.config.path())
            .args(arguments))
    }

    /// The lines of an output, as JSON.
    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[test]
fn json_lines_go_in_by_their_members_and_come_out_with_their_ids() {
    let rows = "{\"key\": \"a-1\", \"body\": \"hello world\", \"more\": [1]}\n\
                {\"key\": \"7\", \"body\": \"你好\"}\n\n";
    let import = Import::new("in.jsonl", rows);
    let arguments = [
        "--text",
        "body",
        "--id",
        "key",
        "in.jsonl",
        "--output",
        "out.jsonl",
    ];
    let (code, _, said) = import.run(&arguments);
    assert_eq!(code, Some(0), "{said}");
    let out = import.lines("out.jsonl");
    assert_eq!(out.len(), 2, "the empty line at the end is no row");
    assert_eq!((&out[0]["id"], &out[1]["id"]), (&"a-1".into(), &"7".into()));
    // The same vectors as of the lines of text.
    fs::write(import.folder.path().join("in.txt"), "hello world\n你好\n").unwrap();
    let (_, plain, _) = import.run(&["in.txt"]);
    for (line, one) in plain.lines().zip(&out) {
        let line: Value = serde_json::from_str(line).unwrap();
        let difference = max_difference(&numbers(&line["embedding"]), &numbers(&one["embedding"]));
        assert!(difference < SAME, "{difference}");
    }
    let (code, _, said) = import.run(&arguments);
    assert!(
        code == Some(1) && said.contains("out.jsonl is there already: --force"),
        "{said}"
    );
    let mut forced = arguments.to_vec();
    forced.push("--force");
    assert_eq!(import.run(&forced).0, Some(0));
    assert!(!import.folder.path().join("out.jsonl.parts").exists());
    // What is not said is not guessed.
    let (code, _, said) = import.run(&["in.jsonl", "--output", "other.jsonl"]);
    assert!(
        code == Some(1) && said.contains("row 1 has no member \"text\": there are body, key, more"),
        "{said}"
    );
    let (code, _, said) = import.run(&["--id", "key", "in.txt"]);
    assert!(code == Some(1) && said.contains("--input-format"), "{said}");
}

#[test]
fn a_bad_row_ends_the_run_which_goes_on_after_it_or_is_left_out() {
    let mut rows: Vec<String> = (0..2000)
        .map(|i| format!("{{\"id\": {i}, \"text\": \"text number {i}\"}}"))
        .collect();
    rows[1500] = "{\"id\": 1500}".into();
    let import = Import::new("in.jsonl", rows.join("\n"));
    let arguments = ["--id", "id", "in.jsonl", "--output", "out.parquet"];
    let (code, _, said) = import.run(&arguments);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("row 1501 has no member \"text\"") && said.contains("--on-error skip"),
        "{said}"
    );
    let parts = import.folder.path().join("out.parquet.parts");
    assert!(
        parts.join("000000000000-000000001500").is_file(),
        "what was embedded is kept"
    );
    // It begins where it ended, and ends there again.
    let (code, _, said) = import.run(&arguments);
    assert!(
        code == Some(1) && said.contains("1500 rows are done"),
        "{said}"
    );
    // The row can be left out without what is done being lost; other options are another run.
    let mut other = arguments.to_vec();
    other.extend(["--dimensions", "8"]);
    let (code, _, said) = import.run(&other);
    assert!(
        code == Some(1) && said.contains("parts of another run"),
        "{said}"
    );
    let mut skipping = arguments.to_vec();
    skipping.extend(["--on-error", "skip"]);
    let (code, _, said) = import.run(&skipping);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1500 rows are done"), "{said}");
    assert!(
        said.contains("row 1501 is left out") && said.contains("1 rows were left out"),
        "{said}"
    );
    assert!(!parts.exists());
    let expected: Vec<i64> = (0..2000).filter(|i| *i != 1500).collect();
    assert_eq!(ids(&import.folder.path().join("out.parquet")), expected);
}

#[test]
fn parquet_goes_in_by_its_columns() {
    let rows: String = (0..700)
        .map(|i| format!("{{\"id\": \"row {i}\", \"text\": \"text {i}\"}}\n"))
        .collect();
    let import = Import::new("in.jsonl", &rows);
    write_parquet(&import.folder.path().join("in.parquet"), 700);
    for input in ["in.jsonl", "in.parquet"] {
        let output = format!("{input}.out.jsonl");
        let (code, _, said) = import.run(&["--id", "id", input, "--output", &output]);
        assert_eq!(code, Some(0), "{said}");
    }
    let (of_json, of_parquet) = (
        import.lines("in.jsonl.out.jsonl"),
        import.lines("in.parquet.out.jsonl"),
    );
    assert_eq!((of_json.len(), of_parquet.len()), (700, 700));
    for (one, other) in of_json.iter().zip(&of_parquet) {
        assert_eq!(
            (&one["id"], &one["tokens"]),
            (&other["id"], &other["tokens"])
        );
    }
    let (code, _, said) = import.run(&["--text", "body", "in.parquet", "--output", "o.jsonl"]);
    assert!(
        code == Some(1) && said.contains("no column \"body\": there are id, text"),
        "{said}"
    );
}

/// A file of two columns of strings.
fn write_parquet(path: &Path, n_rows: usize) {
    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    let schema = "message rows { required binary id (STRING); required binary text (STRING); }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let properties = std::sync::Arc::new(WriterProperties::builder().build());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for name in ["row", "text"] {
        let values: Vec<ByteArray> = (0..n_rows)
            .map(|i| format!("{name} {i}").into_bytes().into())
            .collect();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// The column of ids.
fn ids(path: &Path) -> Vec<i64> {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_long(0).unwrap()).collect()
}

#[test]
fn rows_from_a_pipe_keep_their_ids_and_bad_options_are_no_bad_rows() {
    let import = Import::new("bad.jsonl", "{\"id\": 1}\n{\"id\": 2}\n");
    let mut command = embedgate();
    command.current_dir(import.folder.path());
    let mut child = command
        .args(["embed", "--config"])
        .arg(import.config.path())
        .args([
            "--input-format",
            "jsonl",
            "--id",
            "id",
            "--output",
            "o.parquet",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let rows = b"{\"id\": 5, \"text\": \"a\"}\n{\"id\": 4, \"text\": \"b\"}\n";
    child.stdin.take().unwrap().write_all(rows).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ids(&import.folder.path().join("o.parquet")), [5, 4]);
    // A file of no rows is one all the same.
    let arguments = [
        "bad.jsonl",
        "--id",
        "id",
        "--on-error",
        "skip",
        "--output",
        "none.parquet",
    ];
    let (code, _, said) = import.run(&arguments);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ids(&import.folder.path().join("none.parquet")), [0_i64; 0]);
    fs::write(import.folder.path().join("in.txt"), "a\n").unwrap();
    let (code, _, said) = import.run(&["in.txt", "--dimensions", "9999", "--on-error", "skip"]);
    assert!(code == Some(1) && said.contains("dimensions"), "{said}");
}
