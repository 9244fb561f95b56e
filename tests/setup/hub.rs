//! `embedgate pull`, from a stand-in for both hubs that fails as they do.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use embedgate_test_support::{
    Gateway, client, config_file, copy, embedgate, names, root, run, send_signal, tiny_bge_m3,
};
use serde_json::{Value, json};

/// Bytes of the weights: three parts.
const SIZE: u64 = 40_000_000;
const WEIGHTS: &str = "pytorch_model.bin";

/// The stand-in with the model `a/m`, whose weights are large and take no disk, and `a/tiny`.
pub(crate) struct StandIn {
    child: Child,
    pub(crate) url: String,
    models: Arc<tempfile::TempDir>,
}

impl StandIn {
    fn start(faults: &[Value], flags: &[&str]) -> Self {
        let models = Arc::new(tempfile::tempdir().unwrap());
        let model = models.path().join("a/m");
        fs::create_dir_all(model.parent().unwrap()).unwrap();
        copy(&tiny_bge_m3(), &model);
        fs::remove_file(model.join(WEIGHTS)).unwrap();
        fs::write(model.join(format!("{WEIGHTS}.virtual")), SIZE.to_string()).unwrap();
        // One that can be served.
        copy(&tiny_bge_m3(), &models.path().join("a/tiny"));
        Self::serve(models, faults, flags)
    }

    /// Serves these models.
    pub(crate) fn of(models: tempfile::TempDir) -> Self {
        Self::serve(Arc::new(models), &[], &[])
    }

    /// Serves the same files anew, and has not been asked for anything.
    fn again(self) -> Self {
        Self::serve(Arc::clone(&self.models), &[], &[])
    }

    fn serve(models: Arc<tempfile::TempDir>, faults: &[Value], flags: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(root().join("tests/hub/standin_hub.py"))
            .arg(models.path())
            .args(["--port", "0", "--cdn-port", "0"])
            .args(flags)
            .args(
                faults
                    .iter()
                    .flat_map(|fault| ["--fault".to_owned(), fault.to_string()]),
            )
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            url: started["hub"].as_str().unwrap().into(),
            models,
        }
    }

    fn command(&self, source: &str, to: &Path) -> Command {
        let mut command = embedgate();
        command
            .args(["pull", source, "--to"])
            .arg(to)
            .env("HF_ENDPOINT", &self.url)
            .env("MODELSCOPE_ENDPOINT", &self.url);
        command
    }

    fn pull(&self, source: &str, to: &Path) -> (Option<i32>, String, String) {
        run(&mut self.command(source, to))
    }

    async fn get(&self, page: &str) -> String {
        let url = format!("{}/_hub/{page}", self.url);
        let answer = client().get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// All requests so far.
    async fn log(&self) -> Vec<Value> {
        let text = self.get("log").await;
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The sha256 of each file, as the stand-in has them.
    async fn manifest(&self) -> Vec<(String, u64, String)> {
        let text = self.get("manifest/a/m").await;
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let rows = manifest["files"].as_array().unwrap();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.iter()
            .map(|row| {
                (
                    text(row, "path"),
                    row["size"].as_u64().unwrap(),
                    text(row, "sha256"),
                )
            })
            .collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Checks that a folder holds what the stand-in has, by the record that the pull wrote and by the bytes.
async fn assert_right(hub: &StandIn, folder: &Path, what: &str) {
    let lock: Value =
        serde_json::from_slice(&fs::read(folder.join("embedgate.lock.json")).unwrap()).unwrap();
    let expected = hub.manifest().await;
    let files = lock["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["path"] == WEIGHTS), "{what}");
    for file in files {
        let of = expected
            .iter()
            .find(|(path, ..)| file["path"] == **path)
            .unwrap();
        assert_eq!(
            (&file["size"], &file["sha256"]),
            (&json!(of.1), &json!(of.2)),
            "{what}"
        );
    }
    let (code, out, said) = run(embedgate().args(["models", "verify"]).arg(folder));
    assert_eq!(code, Some(0), "{what}: {out}{said}");
}

/// Faults that a pull has to overcome, for one of the protocols.
fn passing() -> Vec<Value> {
    let on_weights = |fault: Value| {
        let mut fault = fault;
        fault["path"] = json!(WEIGHTS);
        // The hub itself answers with a redirect alone.
        fault["hub"] = json!("cdn");
        fault
    };
    [
        json!({"kind": "cut", "after": 9_000_000, "times": 1}),
        json!({"kind": "cut", "after": 9_000_000, "end": "close", "times": 3}),
        json!({"kind": "wrong", "at": 1000, "times": 1}),
        json!({"kind": "short", "bytes": 100, "times": 1}),
        json!({"kind": "empty", "times": 1}),
        json!({"kind": "html", "times": 1}),
        json!({"kind": "status", "status": 429, "retry_after": 1, "times": 1}),
        json!({"kind": "status", "status": 503, "times": 2}),
        json!({"kind": "expire", "times": 1}),
        json!({"kind": "norange"}),
        json!({"kind": "shift", "times": 1}),
        json!({"kind": "chunked"}),
        json!({"kind": "stall", "after": 5_000_000, "seconds": 1, "times": 1}),
    ]
    .map(on_weights)
    .into()
}

async fn every_fault_ends_in_the_right_bytes(source: &str) {
    let folder = tempfile::tempdir().unwrap();
    for (i, fault) in passing().into_iter().enumerate() {
        let hub = StandIn::start(std::slice::from_ref(&fault), &[]);
        let to = folder.path().join(i.to_string());
        let (code, _, said) = hub.pull(source, &to);
        assert_eq!(code, Some(0), "{fault}: {said}");
        assert_right(&hub, &to, &fault.to_string()).await;
        let struck = hub.log().await.into_iter().any(|row| {
            let faults = row["faults"]
                .as_array()
                .is_some_and(|faults| faults.contains(&fault["kind"]));
            row["side"] == "cdn" && faults
        });
        assert!(struck, "{fault}");
        fs::remove_dir_all(&to).unwrap();
    }
    assert_eq!(
        names(folder.path()),
        Vec::<String>::new(),
        "nothing else stays"
    );
}

#[tokio::test]
async fn every_fault_of_hugging_face_ends_in_the_right_bytes() {
    every_fault_ends_in_the_right_bytes("hf:a/m").await;
}

#[tokio::test]
async fn every_fault_of_modelscope_ends_in_the_right_bytes() {
    every_fault_ends_in_the_right_bytes("modelscope:a/m").await;
}

#[test]
fn what_cannot_be_mended_is_one_sentence_and_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    let cases = [
        (
            json!({"kind": "wrong", "at": 5, "path": WEIGHTS}),
            [WEIGHTS, "is not what"],
        ),
        (
            json!({"kind": "html", "path": "/api/*"}),
            ["/api/", "login page"],
        ),
    ];
    for (fault, expected) in cases {
        let hub = StandIn::start(std::slice::from_ref(&fault), &[]);
        let (code, _, said) = hub.pull("hf:a/m", &to);
        assert_eq!(code, Some(1), "{fault}: {said}");
        for expected in expected {
            assert!(said.contains(expected), "{fault}: {said}");
        }
        assert!(!to.exists(), "{fault}");
    }
    let hub = StandIn::start(&[], &[]);
    for (source, expected) in [
        ("hf:a/none", "HF_TOKEN"),
        ("modelscope:a/none", "MODELSCOPE_API_TOKEN"),
        ("hf:a/m@v9", "has no revision v9 of a/m"),
    ] {
        let (code, _, said) = hub.pull(source, &to);
        assert_eq!(code, Some(1), "{source}: {said}");
        assert!(said.contains(expected), "{source}: {said}");
    }
    let (code, _, said) = run(hub.command("a/m", &to).env("HF_HUB_OFFLINE", "1"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    let (code, _, said) = hub.pull("bge-m3", &to);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("OWNER/NAME"), "{said}");
    assert!(!to.exists());
}

/// The stand-in's server of large files refuses every request that carries a token.
#[tokio::test]
async fn a_token_opens_what_is_private_and_goes_to_the_hub_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hub = StandIn::start(&[], &["--token", "hf_secret", "--private", "a/m", "--xet"]);
    for (source, variable) in [
        ("hf:a/m", "HF_TOKEN"),
        ("modelscope:a/m", "MODELSCOPE_API_TOKEN"),
    ] {
        let to: PathBuf = folder.path().join(variable);
        let (code, _, said) = hub.pull(source, &to);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(variable), "{said}");
        let (code, _, said) = run(hub.command(source, &to).env(variable, "hf_wrong"));
        assert_eq!(code, Some(1), "{said}");
        assert!(!said.contains("hf_wrong"), "{said}");
        let (code, out, said) = run(hub.command(source, &to).env(variable, "hf_secret"));
        assert_eq!(code, Some(0), "{said}");
        assert_right(&hub, &to, source).await;
        let lock = fs::read_to_string(to.join("embedgate.lock.json")).unwrap();
        assert!(!format!("{out}{said}{lock}").contains("hf_secret"));
    }
}

/// The first to answer has no weights any more; the other, whose list came later, has the same.
#[tokio::test]
async fn where_one_hub_fails_the_other_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    let gone = json!({"kind": "status", "status": 404, "path": WEIGHTS, "hub": "cdn"});
    let late = json!({"kind": "status", "status": 503, "times": 1, "path": "/api/*"});
    let first = StandIn::start(&[gone], &[]);
    let models = Arc::clone(&first.models);
    let other = StandIn::serve(models, &[late], &[]);
    let mut command = first.command("a/m", &to);
    let (code, _, said) = run(command.env("MODELSCOPE_ENDPOINT", &other.url));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("going on elsewhere"), "{said}");
    assert_right(&first, &to, "two hubs").await;
    assert!(sent_bytes(&other).await >= SIZE);
}

/// Bytes that were there when the process was killed are not fetched again.
#[tokio::test]
async fn a_pull_that_was_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    let slow = json!({"kind": "slow", "rate": 8_000_000, "path": WEIGHTS, "hub": "cdn"});
    let hub = StandIn::start(&[slow], &[]);
    let mut killed = hub
        .command("hf:a/m", &to)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The first part of the weights is noted below the line that says their size.
    let has_part = || {
        let entries = fs::read_dir(folder.path().join("model.embedgate-pull"));
        let mut paths = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        paths.any(|path| {
            if path.extension().is_none_or(|end| end != "journal") {
                return false;
            }
            let text = fs::read_to_string(path).unwrap_or_default();
            text.starts_with(&SIZE.to_string()) && text.lines().count() > 1
        })
    };
    while !has_part() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!to.exists());
    let hub = hub.again();
    let (code, _, said) = hub.pull("hf:a/m", &to);
    assert_eq!(code, Some(0), "{said}");
    assert_right(&hub, &to, "killed").await;
    // All but the part that was whole, at most.
    let sent = sent_bytes(&hub).await;
    assert!(sent <= SIZE - (16 << 20) + 100_000, "{sent}");
    assert_eq!(names(folder.path()), ["model"], "nothing else stays");
    // Once more: all is there.
    let before = sent_bytes(&hub).await;
    assert_eq!(hub.pull("modelscope:a/m", &to).0, Some(0));
    assert_eq!(sent_bytes(&hub).await, before);
    // A damaged file is noticed, and fetched again.
    fs::write(to.join("config.json"), "{}").unwrap();
    let (code, out, _) = run(embedgate().args(["models", "verify"]).arg(&to));
    assert_eq!(code, Some(1));
    assert!(out.contains("config.json has 2 bytes, not"), "{out}");
    assert_eq!(hub.pull("hf:a/m", &to).0, Some(0));
    assert_right(&hub, &to, "mended").await;
}

/// Bytes that the server of large files sent.
async fn sent_bytes(hub: &StandIn) -> u64 {
    let rows = hub
        .log()
        .await
        .into_iter()
        .filter(|row| row["side"] == "cdn");
    rows.map(|row| row["sent"].as_u64().unwrap()).sum()
}

/// Writes what the stand-in has as a client's cache does.
async fn fill_cache(hub: &StandIn, write: impl Fn(&str, &str, &[u8])) {
    for (path, _, sha256) in hub.manifest().await {
        let url = format!("{}/a/m/resolve/main/{path}", hub.url);
        let bytes = client()
            .get(url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        write(&path, &sha256, &bytes);
    }
}

/// In every layout that the clients have had. The files are those of the clients' own, tried by hand.
#[tokio::test]
async fn what_other_programs_fetched_is_not_fetched_again_unless_it_is_damaged() {
    let hub = StandIn::start(&[], &[]);
    let home = tempfile::tempdir().unwrap();
    let put = |path: PathBuf, bytes: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let snapshots = ".cache/huggingface/hub/models--a--m/snapshots/abc";
    fill_cache(&hub, |path, sha256, bytes| {
        // A file of the snapshot is a link to its bytes.
        let blob = home
            .path()
            .join(".cache/huggingface/hub/models--a--m/blobs")
            .join(sha256);
        put(blob.clone(), bytes);
        let link = home.path().join(snapshots).join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(blob, link).unwrap();
        for layout in ["new/models/a--m/snapshots/master", "old/models/a/m"] {
            put(home.path().join(layout).join(path), bytes);
        }
    })
    .await;
    let listed = run(hub.command("hf:a/m", Path::new("nowhere")).arg("--dry-run")).1;
    let n_files = listed.lines().count() - 1;
    let to = home.path().join("models/m");
    let none = home.path().join("none");
    let path = |name: &str| home.path().join(name);
    for (source, variable, value) in [
        ("hf:a/m", "HOME", home.path().to_owned()),
        ("hf:a/m", "HF_HUB_CACHE", path(".cache/huggingface/hub")),
        ("modelscope:a/m", "MODELSCOPE_CACHE", path("new")),
        ("modelscope:a/m", "MODELSCOPE_CACHE", path("old")),
        // One hub's cache serves a model of the other.
        ("modelscope:a/m", "HOME", home.path().to_owned()),
    ] {
        let before = sent_bytes(&hub).await;
        let (code, out, said) = run(hub
            .command(source, &to)
            .env("HOME", &none)
            .env(variable, &value));
        assert_eq!(code, Some(0), "{variable}: {said}");
        // All, and a file of the cache is named by another hash where it is a small one.
        assert!(
            out.contains(&format!("{n_files} from a cache")),
            "{variable}: {out}"
        );
        assert_eq!(sent_bytes(&hub).await, before, "{source} {variable}");
        assert_right(&hub, &to, variable).await;
        fs::remove_dir_all(&to).unwrap();
    }
    // A folder that is named, with one wrong byte in the weights.
    let file = path("old/models/a/m").join(WEIGHTS);
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let before = sent_bytes(&hub).await;
    let folder = path("old/models/a/m");
    let folder = folder.to_str().unwrap();
    let (code, out, said) = run(hub.command("hf:a/m", &to).args(["--from", folder]));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("from a cache"), "{out}");
    assert_eq!(sent_bytes(&hub).await - before, SIZE, "the weights alone");
    assert_right(&hub, &to, "damaged").await;
}

#[tokio::test]
async fn a_second_pull_is_told_of_the_first_and_an_end_by_ctrl_c_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    let slow = json!({"kind": "slow", "rate": 2_000_000, "path": WEIGHTS, "hub": "cdn"});
    let hub = StandIn::start(&[slow], &[]);
    let first = hub
        .command("hf:a/m", &to)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let holds = || fs::read_to_string(folder.path().join("model.embedgate-pull/lock"));
    let mut first = first;
    while holds().unwrap_or_default().trim() != first.id().to_string() {
        assert!(first.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    let (code, _, said) = hub.pull("hf:a/m", &to);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&first.id().to_string()), "{said}");
    send_signal(&first, libc::SIGINT);
    let ended = first.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the same command goes on where it was"),
        "{said}"
    );
    assert!(!to.exists());
}

#[tokio::test]
async fn long_lists_are_read_to_their_end_and_who_has_no_leave_is_told_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let pages = StandIn::start(&[], &["--page-size", "3"]);
    for source in ["hf:a/m", "modelscope:a/m"] {
        let to = folder.path().join(source.replace([':', '/'], "-"));
        let (code, _, said) = pages.pull(source, &to);
        assert_eq!(code, Some(0), "{source}: {said}");
        assert_right(&pages, &to, source).await;
    }
    let gated = StandIn::start(&[], &["--token", "hf_secret", "--gated", "a/m"]);
    let to = folder.path().join("gated");
    let (code, _, said) = gated.pull("hf:a/m", &to);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("HF_TOKEN"), "{said}");
    assert!(!to.exists());
}

/// A configuration of a model that is here and of one that a hub has.
fn with_source(to: &Path) -> String {
    let here = tiny_bge_m3();
    format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.here]\npath = {here:?}\n\
         [models.far]\npath = {to:?}\nsource = \"hf:a/tiny\"\n"
    )
}

/// The state of the first model in `/readyz`, which has not failed.
async fn first_state(gateway: &Gateway) -> String {
    let answer = gateway.get("/readyz").await;
    let state = answer.body["models"][0]["status"].as_str().unwrap();
    assert_ne!(state, "failed", "{}", answer.body);
    state.to_owned()
}

#[tokio::test]
async fn a_configured_model_is_fetched_while_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("far");
    let text = with_source(&to);
    // Long enough for what is asked meanwhile.
    let gate = json!({"kind": "slow", "rate": 1_000_000, "path": WEIGHTS, "hub": "cdn"});
    let hub = StandIn::start(&[gate], &[]);
    // Nothing is fetched where nobody says so, and no connection is opened.
    let variables = [
        ("HF_ENDPOINT", &*hub.url),
        ("MODELSCOPE_ENDPOINT", &*hub.url),
    ];
    let mut without = Gateway::start_loading(&text, &variables);
    without.wait_until_ready();
    let answer = without.embed(&json!({"model": "far", "input": "a"})).await;
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .message()
            .contains("`embedgate pull huggingface:a/tiny --to "),
        "{}",
        answer.body
    );
    drop(without.stop());
    assert_eq!(hub.log().await.len(), 0);

    let mut gateway = Gateway::start_pulling(&text, &variables);
    gateway.wait_until_ready();
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.body["models"][0]["id"], "far", "{}", ready.body);
    assert_eq!(
        ready.body["models"][0]["status"], "fetching",
        "{}",
        ready.body
    );
    let here = gateway.vectors("here", &json!("text")).await;
    let answer = gateway.embed(&json!({"model": "far", "input": "a"})).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        answer.message().contains("is being fetched"),
        "{}",
        answer.body
    );
    // A reload meanwhile does not disturb the fetch, and its settings count.
    let adjusted = text.replace("source = ", "aliases = [\"further\"]\nsource = ");
    fs::write(gateway.config_file(), adjusted).unwrap();
    gateway.signal(libc::SIGHUP);
    gateway.wait_for_log("the configuration is reloaded");
    gateway.wait_for_log("model far is ready");
    // Published right after.
    while first_state(&gateway).await != "ready" {}
    assert_eq!(gateway.vectors("further", &json!("text")).await, here);
}

#[tokio::test]
async fn pull_gets_what_the_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("far");
    let hub = StandIn::start(&[], &[]);
    let order = format!("[hub]\norder = [{:?}]\n", hub.url);
    let file = config_file(&(with_source(&to) + &order));
    let pull = |args: &[&str]| {
        run(embedgate()
            .arg("pull")
            .args(args)
            .arg("--config")
            .arg(file.path()))
    };
    let (code, _, said) = pull(&["here"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("models.here has no source"), "{said}");
    let (code, out, said) = pull(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.contains("is whole") && to.join(WEIGHTS).exists(),
        "{out}"
    );
    let (code, out, _) = pull(&[]);
    assert_eq!(
        (code, out.contains("far is there")),
        (Some(0), true),
        "{out}"
    );
    let (code, out, said) = pull(&["far"]);
    assert_eq!(
        (code, out.contains("were there")),
        (Some(0), true),
        "{out}{said}"
    );

    let models = |args: &[&str]| {
        run(embedgate()
            .arg("models")
            .args(args)
            .arg("--config")
            .arg(file.path()))
    };
    let (code, out, said) = models(&["list"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("huggingface:a/tiny of"), "{out}");
    // A pull of another model does not take its place.
    let (code, _, said) = run(&mut hub.command("hf:a/m", &to));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("holds huggingface:a/tiny"), "{said}");
    fs::write(to.join("mine.txt"), "").unwrap();
    let (code, out, said) = models(&["remove", "far"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("1 files that no pull has fetched"), "{out}");
    assert!(
        out.contains("models.far of the configuration names it still"),
        "{out}"
    );
    assert_eq!(names(&to), ["mine.txt"]);
    // What nobody fetched is not deleted unless that is said, and only a model is.
    let mine = folder.path().join("mine");
    copy(&tiny_bge_m3(), &mine);
    let shown = mine.to_str().unwrap();
    assert_eq!(models(&["lock", shown]).0, Some(0));
    assert_eq!(models(&["verify", shown]).0, Some(0));
    for refused in [shown, folder.path().to_str().unwrap()] {
        let (code, _, said) = models(&["remove", refused]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--force"), "{said}");
    }
    let (code, _, said) = models(&["remove", "--force", folder.path().to_str().unwrap()]);
    assert_eq!(
        (code, said.contains("is no model's folder")),
        (Some(1), true),
        "{said}"
    );
    assert_eq!(models(&["remove", "--force", shown]).0, Some(0));
    assert!(!mine.exists());
    let (code, out, _) = models(&["verify", shown]);
    assert_eq!(
        (code, out.contains("is not there")),
        (Some(1), true),
        "{out}"
    );
}

/// Two models in one folder, and one whose source changes while it is fetched.
#[tokio::test]
async fn a_folder_is_fetched_once_and_from_where_the_configuration_says_now() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("far");
    let gate = json!({"kind": "slow", "rate": 1_000_000, "path": WEIGHTS, "hub": "cdn"});
    let hub = StandIn::start(&[gate], &[]);
    let variables = [
        ("HF_ENDPOINT", &*hub.url),
        ("MODELSCOPE_ENDPOINT", &*hub.url),
    ];
    let second = format!("[models.second]\npath = {to:?}\nsource = \"hf:a/none\"\n");
    let wrong = with_source(&to).replace("hf:a/tiny", "hf:a/none") + &second;
    let mut gateway = Gateway::start_pulling(&wrong, &variables);
    gateway.wait_until_ready();
    gateway.wait_for_log("trying again in 5 s");
    let answer = gateway.embed(&json!({"model": "far", "input": "a"})).await;
    assert!(
        answer.message().contains("has no model a/none"),
        "{}",
        answer.body
    );
    fs::write(
        gateway.config_file(),
        wrong.replace("hf:a/none", "hf:a/tiny"),
    )
    .unwrap();
    gateway.signal(libc::SIGHUP);
    gateway.wait_for_log("model far is ready");
    gateway.wait_for_log("model second is ready");
    assert!(!gateway.log().contains("is being fetched by process"));
    let lock = fs::read_to_string(to.join("embedgate.lock.json")).unwrap();
    assert!(lock.contains("huggingface:a/tiny"), "{lock}");
}
