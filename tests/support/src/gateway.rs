//! The real program, running.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Answer, client, embedgate, log::Log};

/// The pause between two questions whether the program is ready.
const READY_PAUSE: Duration = Duration::from_millis(5);

/// The running program. Killed when dropped.
pub struct Gateway {
    /// Where it listens, as `http://ADDRESS`.
    pub url: String,
    child: Child,
    log: Log,
    client: reqwest::Client,
    config: tempfile::TempDir,
    // The program may write to it as long as it runs.
    _stdout: BufReader<ChildStdout>,
}

/// Sends a signal to a program.
pub fn send_signal(child: &Child, signal: i32) {
    let pid = child.id().cast_signed();
    #[expect(
        unsafe_code,
        reason = "the standard library sends no signal but SIGKILL"
    )]
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0);
}

impl Gateway {
    /// Starts the program with this configuration and waits until it is ready.
    #[must_use]
    pub fn start(config: &str) -> Self {
        let mut gateway = Self::start_loading(config, &[]);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts the program where no file may grow beyond so many blocks of 512 bytes, and waits until it is ready.
    #[must_use]
    pub fn start_with_full_disk(config: &str, blocks: u32) -> Self {
        // Without its signal, the limit is to a program what a full disk is: an error of the write.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]);
        let program = embedgate();
        shell.arg(program.get_program()).env_clear();
        let variables = program.get_envs();
        shell.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        let mut gateway = Self::start_command(shell, config, &[]);
        gateway.wait_until_ready();
        gateway
    }

    /// Starts the program and waits until it listens; models may still be loading.
    #[must_use]
    pub fn start_loading(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_command(embedgate(), config, variables)
    }

    /// The same, where models that are not there are fetched.
    #[must_use]
    pub fn start_pulling(config: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = embedgate();
        command.args(["serve", "--pull"]);
        Self::start_command(command, config, variables)
    }

    fn start_command(mut command: Command, config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("embedgate.toml");
        std::fs::write(&file, config).unwrap();
        command
            .arg("--config")
            .arg(&file)
            .args(["--listen", "127.0.0.1:0", "--port-file", "/dev/stdout"])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Log::read(child.stderr.take().unwrap());
        // It ends where the program ends.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        stdout.read_line(&mut port).unwrap();
        let port = port.trim();
        assert!(!port.is_empty(), "does not listen:\n{}", log.whole());
        Self {
            url: format!("http://127.0.0.1:{port}"),
            child,
            log,
            client: client(),
            config: folder,
            _stdout: stdout,
        }
    }

    /// Asks `/readyz` until it says yes.
    pub fn wait_until_ready(&mut self) {
        while !self.is_ready() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}:\n{}", self.log());
            std::thread::sleep(READY_PAUSE);
        }
    }

    fn is_ready(&self) -> bool {
        // Nobody may listen any more: then it has ended.
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return false;
        };
        let request = b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        let read = stream.write_all(request);
        let read = read.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    }

    /// Waits until the log holds the text.
    pub fn wait_for_log(&self, text: &str) {
        self.log.lines().wait_for(text, 1);
    }

    /// Waits until the log holds the text so many times, and lets other futures run meanwhile.
    pub async fn logged(&self, text: &'static str, n: usize) {
        let lines = self.log.lines();
        let waiting = tokio::task::spawn_blocking(move || lines.wait_for(text, n));
        waiting.await.unwrap();
    }

    /// The log so far, from standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lines().text()
    }

    /// The file of its configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.path().join("embedgate.toml")
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    /// Waits for the end; returns the status and the whole log.
    #[must_use]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        // Only its own Drop is left to run, on a child that has ended.
        let log = std::mem::replace(&mut self.log, Log::read(std::io::empty()));
        (status, log.whole())
    }

    /// Ends the program as an operator does; returns the whole log.
    #[must_use]
    pub fn stop(self) -> String {
        self.signal(libc::SIGTERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// Ends the process as nothing else does: at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Resident memory now, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mut lines = status.lines();
        let size = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        size.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The processors that each thread of this name may run on, as the system lists them.
    #[must_use]
    pub fn processors_of_threads(&self, name: &str) -> Vec<String> {
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

    /// Waits until what was computed so far is in the cache's file.
    pub async fn wait_until_written(&self) {
        // A commit that begins after this text was computed holds all before it, and there may be one under way.
        for n in 0..2 {
            let before = self.commits().await;
            // New in every process: what is in the file already is not written again.
            let text = format!("{} wrote {before} times {n}", self.child.id());
            self.vectors("tiny", &json!(text)).await;
            while self.commits().await == before {}
        }
    }

    async fn commits(&self) -> f64 {
        self.metrics().await["embedgate_cache_file_commits_total"]
    }

    /// The metrics by name and labels.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200);
        let text = answer.body.as_str().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Behind the value of a time may be the trace of a request.
        let samples = lines.filter_map(|line| line.split(" # {trace_id").next());
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// POSTs a body as it is.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(body).send().await.unwrap()).await
    }

    /// POSTs a JSON body.
    pub async fn ask(&self, path: &str, body: &Value) -> Answer {
        self.post(path, body.to_string()).await
    }

    /// The body of the answer to a JSON body, where it is 200.
    pub async fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask(path, body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.body
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.url));
        Answer::of(request.send().await.unwrap()).await
    }

    /// Asks the default model for the vector of one text, as the caller with this key; returns the status and the body.
    pub async fn ask_with_key(&self, key: Option<&str>) -> (u16, Value) {
        let mut request = self.client.post(format!("{}/v1/embeddings", self.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.json(&json!({"input": "a"})).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// POSTs to `/v1/embeddings`.
    pub async fn embed(&self, body: &Value) -> Answer {
        self.ask("/v1/embeddings", body).await
    }

    /// The vectors of some texts, as floats.
    pub async fn vectors(&self, model: &str, input: &Value) -> Vec<Vec<f32>> {
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
