//! What tests share: the fixtures, and the real program on a port of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

use embedgate_core::{Precision, library::Candidates};
use embedgate_onnx::convert::Files;
use serde_json::{Value, json};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn fixtures() -> PathBuf {
    root().join("tests/fixtures")
}

/// A random model of width 64, laid out as BAAI/bge-m3 is.
pub(crate) fn tiny_bge_m3() -> PathBuf {
    fixtures().join("tiny-bge-m3")
}

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

/// oneDNN, as `scripts/setup` fetches it.
pub(crate) fn onednn() -> Candidates {
    Candidates {
        named: Some(root().join(".embedgate/onednn")),
        folders: Vec::new(),
    }
}

/// True where this processor has the products that the cpu backend needs for a precision.
pub(crate) fn runs(precision: Precision) -> bool {
    let library = embedgate_cpu::runtime::load(&onednn()).unwrap();
    embedgate_cpu::runs(library, precision)
}

/// The texts that the reference vectors were made from.
pub(crate) fn texts() -> Vec<String> {
    let json = std::fs::read_to_string(fixtures().join("texts.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// A command of the program, without the variables of this process that would steer it.
pub(crate) fn embedgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedgate"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .env("ORT_DYLIB_PATH", root().join(".embedgate/lib"));
    command
}

/// Copies a folder and all that is in it to one that may be there.
pub(crate) fn copy(from: &Path, to: &Path) {
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
        let output = embedgate()
            .arg("convert")
            .arg(model)
            .arg("--output")
            .arg(folder.path().join("onnx"))
            .args(["--precision", &precision.to_string()])
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        folder
    });
    let name = Files::of(precision).unwrap().model;
    folder.path().join("onnx").join(name)
}

/// A configuration of the tiny model named `tiny`, with what else is given; no key is needed.
pub(crate) fn tiny_config(more: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.tiny]\npath = {path:?}\n\
         aliases = [\"BAAI/tiny\"]\nbackend = {{ threads = 1 }}\n{more}\n"
    )
}

/// The running program. Killed when dropped.
pub(crate) struct Gateway {
    pub(crate) url: String,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    client: reqwest::Client,
    _config: tempfile::TempDir,
}

impl Gateway {
    /// Starts the program with this configuration and waits until it is ready.
    pub(crate) fn start(config: &str) -> Self {
        let gateway = Self::start_loading(config, &[]);
        gateway.wait_for_log("\"message\":\"ready\"");
        gateway
    }

    /// Starts the program where no file may grow beyond so many blocks of 512 bytes, and waits until it is ready.
    pub(crate) fn start_with_full_disk(config: &str, blocks: u32) -> Self {
        // Without its signal, the limit is to a program what a full disk is: an error of the write.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]);
        let program = embedgate();
        shell.arg(program.get_program()).env_clear();
        shell.envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let gateway = Self::start_command(shell, config, &[]);
        gateway.wait_for_log("\"message\":\"ready\"");
        gateway
    }

    /// Starts the program and waits until it listens; models may still be loading.
    pub(crate) fn start_loading(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_command(embedgate(), config, variables)
    }

    fn start_command(mut command: Command, config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("embedgate.toml");
        std::fs::write(&file, config).unwrap();
        command
            .arg("--config")
            .arg(&file)
            .args(["--listen", "127.0.0.1:0"])
            .envs(variables.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let reader = {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in stderr.lines() {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line.unwrap_or_default());
                    log.push('\n');
                }
            })
        };
        let client = client();
        let mut gateway = Self {
            url: String::new(),
            child,
            log,
            reader: Some(reader),
            client,
            _config: folder,
        };
        let line = gateway.wait_for_log("listens on");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        gateway.url = format!("http://{}", parsed["address"].as_str().unwrap());
        gateway
    }

    /// Waits until the log holds the text, and returns its line.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        loop {
            let finished = self
                .reader
                .as_ref()
                .is_none_or(std::thread::JoinHandle::is_finished);
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(!finished, "the program ended without {text:?}:\n{log}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The file of its configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self._config.path().join("embedgate.toml")
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = self.child.id().cast_signed();
        #[expect(
            unsafe_code,
            reason = "the standard library sends no signal but SIGKILL"
        )]
        // SAFETY: kill takes two numbers and touches no memory of ours.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for the end; returns the status and the whole log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.log())
    }

    /// Resident memory now, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The processors that each thread of this name may run on, as the system lists them.
    pub(crate) fn processors_of_threads(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let read = |task: &Path, file: &str| std::fs::read_to_string(task.join(file)).unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        let named = tasks.filter(|task| read(task, "comm").trim() == name);
        let allowed = named.map(|task| {
            let status = read(&task, "status");
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        });
        allowed.collect()
    }

    /// Ends the process as nothing else does: at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until what was computed so far is in the cache's file.
    pub(crate) async fn wait_until_written(&self) {
        // A commit that begins after this text was computed holds all before it, and there may be one under way.
        for n in 0..2 {
            let before = self.commits().await;
            // New in every process: what is in the file already is not written again.
            let text = format!("{} wrote {before} times {n}", self.child.id());
            self.vectors("tiny", &json!(text)).await;
            while self.commits().await == before {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn commits(&self) -> f64 {
        self.metrics().await["embedgate_cache_file_commits_total"]
    }

    /// The metrics by name and labels.
    pub(crate) async fn metrics(&self) -> std::collections::HashMap<String, f64> {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200);
        let text = answer.body.as_str().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// POSTs a body as it is.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        Answer::of(request.body(body).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(
            self.client
                .get(format!("{}{path}", self.url))
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// POSTs to `/v1/embeddings`.
    pub(crate) async fn embed(&self, body: &Value) -> Answer {
        self.post("/v1/embeddings", body.to_string()).await
    }

    /// The vectors of some texts, as floats.
    pub(crate) async fn vectors(&self, model: &str, input: &Value) -> Vec<Vec<f32>> {
        let answer = self.embed(&json!({"model": model, "input": input})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.vectors()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn vectors(&self) -> Vec<Vec<f32>> {
        let items = self.body["data"].as_array().unwrap().iter();
        items
            .map(|item| serde_json::from_value(item["embedding"].clone()).unwrap())
            .collect()
    }
}

/// Runs a command to its end; returns the exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
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
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    (child.wait().unwrap().code(), out, errors.join().unwrap())
}

/// Cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// The largest difference of two vectors.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f32::max)
}

/// A client. reqwest is built without a library for TLS, which the gateway's own requests choose themselves.
pub(crate) fn client() -> reqwest::Client {
    // An error means that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}
