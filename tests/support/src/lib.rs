//! Helpers of the program's tests: the fixtures, and the real program on a port of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod answer;
mod damaged;
mod gateway;
mod log;
mod reference;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use self::{
    answer::{Answer, ids, numbers},
    damaged::ModelCopy,
    gateway::{Gateway, send_signal},
    reference::Reference,
};

/// Two f32 runs of one text in other company differ by less.
pub const SAME: f32 = 2e-6;
/// The largest difference from a reference library, which sums in another order.
pub const LIKE: f32 = 1e-4;

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder of the fixtures.
#[must_use]
pub fn fixtures() -> PathBuf {
    root().join("tests/fixtures")
}

/// A random model of width 64, laid out as BAAI/bge-m3 is.
#[must_use]
pub fn tiny_bge_m3() -> PathBuf {
    fixtures().join("tiny-bge-m3")
}

/// The text of `config/embedgate.toml` with its commented keys put in: `#key = ...` and `#[table]`, while sentences begin with `# `.
#[must_use]
pub fn config_with_all_keys() -> String {
    let text = std::fs::read_to_string(root().join("config/embedgate.toml")).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A component of the guests that are checked in.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    root().join(format!("plugins/built/{name}.wasm"))
}

/// The texts that the reference vectors were made from.
#[must_use]
pub fn texts() -> Vec<String> {
    let json = std::fs::read_to_string(fixtures().join("texts.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// A configuration of the tiny model named `tiny`, with what else is given; no key is needed.
#[must_use]
pub fn tiny_config(more: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.tiny]\npath = {path:?}\n\
         aliases = [\"BAAI/tiny\"]\nbackend = {{ threads = 1 }}\n{more}\n"
    )
}

/// A configuration of the tiny model with this `[auth]` in place of the mode, such as `keys = ["a-key"]`.
#[must_use]
pub fn config_with_auth(auth: &str) -> String {
    tiny_config("").replace("mode = \"none\"\n", &format!("{auth}\n"))
}

/// A configuration of the tiny model as `bge-m3-local`, which is the default, and of a tiny reranker as `reranker`.
#[must_use]
pub fn embedder_and_reranker() -> String {
    let (model, reranker) = (tiny_bge_m3(), fixtures().join("tiny-xlmr-reranker"));
    format!(
        "default_model = \"bge-m3-local\"\n[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n\
         [models.bge-m3-local]\npath = {model:?}\n[models.reranker]\npath = {reranker:?}\n"
    )
}

/// A configuration in a file of its own.
#[must_use]
pub fn config_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A command of the program, without the variables of this process that would steer it.
#[must_use]
pub fn embedgate() -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "no part of the gateway: cargo speaks to tests by variables"
    )]
    let program = std::env::var_os("CARGO_BIN_EXE_embedgate")
        .expect("cargo names the program to tests of its package: run them by `cargo test`");
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .env("ORT_DYLIB_PATH", root().join(".embedgate/lib"));
    command
}

/// Runs a command to its end; returns the exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut out = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut out).unwrap();
    (child.wait().unwrap().code(), out, errors.join().unwrap())
}

/// Runs a plugin against a file of cases, and asserts that all of them hold.
pub fn assert_cases(component: &Path, cases: &Path) {
    let (code, out, errors) = run(embedgate()
        .args(["plugin", "test"])
        .arg(component)
        .arg(cases));
    assert_eq!(code, Some(0), "{}:\n{out}{errors}", cases.display());
    assert!(out.contains("ok"), "{out}");
}

/// The word behind a mark, up to the next space.
#[must_use]
pub fn word_after<'t>(text: &'t str, mark: &str) -> &'t str {
    let (_, rest) = text.split_once(mark).unwrap();
    rest.split(' ').next().unwrap()
}

/// The names of what is in a folder, in order.
#[must_use]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Copies a folder and all that is in it to one that may be there.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Cosine of the angle between two vectors.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        products.sum::<f64>()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// The largest difference of two vectors.
#[must_use]
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(x, y)| (x - y).abs());
    differences.fold(0.0, f32::max)
}

/// A client. reqwest is built without a library for TLS, which the gateway's own requests choose themselves.
#[must_use]
pub fn client() -> reqwest::Client {
    // An error means that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}
