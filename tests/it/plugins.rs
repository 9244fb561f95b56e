//! Plugins in a configuration: pins, what is refused, loading anew.

use embedgate_test_support::{Gateway, config_with_auth, embedgate, guest, run, tiny_config};
use serde_json::json;
use std::{fs, path::PathBuf};

/// A configuration file in a folder with a copy of the guest that attacks.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(guest("hostile"), folder.path().join("hostile.wasm")).unwrap();
        let files = Self { folder };
        files.write(config);
        files
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("embedgate.toml")
    }

    fn write(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    fn check(&self) -> (Option<i32>, String, String) {
        run(embedgate().arg("check").arg(self.config()))
    }
}

#[test]
fn a_pin_is_written_beside_what_is_there_and_kept_to() {
    let config = tiny_config(
        "# the plugin\n[plugins.hostile] # here\npath = \"hostile.wasm\"\nhooks = [\"preprocess\"]",
    );
    let files = Files::new(&config);
    let pin = |names: &[&str]| {
        run(embedgate()
            .arg("--config")
            .arg(files.config())
            .args(["plugin", "pin"])
            .args(names))
    };
    assert_eq!(pin(&[]).0, Some(0));
    let pinned = fs::read_to_string(files.config()).unwrap();
    assert!(
        pinned.contains("# the plugin\n[plugins.hostile] # here"),
        "{pinned}"
    );
    assert!(pinned.contains("sha256 = \""), "{pinned}");
    assert_eq!(files.check().0, Some(0));
    let component = files.folder.path().join("hostile.wasm");
    fs::copy(guest("text-normalize"), &component).unwrap();
    let (code, _, errors) = files.check();
    assert!(
        code == Some(78) && errors.contains("embedgate plugin pin"),
        "{errors}"
    );
    assert!(pin(&["hostile"]).1.contains("(changed)"));
    assert_eq!(files.check().0, Some(0));
    let (code, _, errors) = pin(&["other"]);
    assert!(
        code == Some(1) && errors.contains("choose from: hostile"),
        "{errors}"
    );
}

#[test]
fn check_shows_settings_as_they_are_written() {
    let redact = guest("pii-redact");
    let plugin =
        format!("[plugins.p]\npath = {redact:?}\nsettings = {{ replacement = \"${{NOTE}}\" }}");
    let files = Files::new(&tiny_config(&plugin));
    let mut command = embedgate();
    command.arg("check").arg(files.config());
    let (code, out, errors) = run(command.env("NOTE", "from-the-environment"));
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("replacement = \"${NOTE}\""), "{out}");
    assert!(!out.contains("from-the-environment"), "{out}");
}

#[test]
fn a_start_with_a_plugin_that_cannot_be_used_ends_with_78_and_says_why() {
    let with =
        |plugin: &str| tiny_config(&format!("[plugins.p]\npath = \"hostile.wasm\"\n{plugin}"));
    let cases = [
        (with("timeout = \"0s\""), "plugins.p.timeout"),
        (with("headers = [\"X-Key\"]"), "plugins.p.headers[0]"),
        (
            with("grants = { network = true }"),
            "plugins.p.grants.network",
        ),
        (with("max_memory = \"1GiB\""), "plugins.p.max_memory"),
        (
            with("grants = { http = { allow = [\"ftp://x\"] } }"),
            "plugins.p.grants.http.allow[0]",
        ),
        (with("instance = \"forever\""), "plugins.p.instance"),
        (with("hooks = [\"authenticate\"]"), "a plugin authenticates"),
        // Only the component knows that it authenticates.
        (with(""), "a plugin authenticates"),
        (
            with("settings = { attack = \"reject\" }\nhooks = [\"preprocess\"]"),
            "the settings are refused",
        ),
        (
            with("settings = { colour = 1 }\nhooks = [\"preprocess\"]"),
            "colour",
        ),
        (with("").replace("hostile.wasm", "gone.wasm"), "gone.wasm"),
        (
            with("settings = { every_call = \"trap\" }\nhooks = [\"preprocess\"]"),
            "its first call fails",
        ),
        (
            with(
                "settings = { every_call = \"trap\" }\nhooks = [\"preprocess\"]\ninstance = { reuse = 10 }",
            ),
            "its first call fails",
        ),
    ];
    for (config, expected) in cases {
        let files = Files::new(&config);
        let (code, _, errors) = files.check();
        assert_eq!(code, Some(78), "{expected}: {errors}");
        assert!(errors.contains(expected), "{expected} is not in: {errors}");
        let mut command = embedgate();
        command
            .arg("--config")
            .arg(files.config())
            .args(["--listen", "127.0.0.1:0"]);
        let (code, _, errors) = run(&mut command);
        assert_eq!(code, Some(78), "{expected}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_swaps_plugins_and_keys_a_hundred_times_and_no_request_fails() {
    let text = |order: usize, key: &str| {
        let auth = format!("keys = [\"the-first-key\", \"{key}\"]");
        let plugin = "[plugins.hostile]\npath = \"PATH\"\nhooks = [\"preprocess\"]\norder = ";
        config_with_auth(&auth) + plugin + &order.to_string() + "\n"
    };
    let path = guest("hostile");
    // Compiled once, and then taken from the disk.
    let state = tempfile::tempdir().unwrap();
    let text = |order, key| {
        let server = format!("[server]\nstate_dir = {:?}\n", state.path());
        server + &text(order, key).replace("PATH", path.to_str().unwrap())
    };
    let gateway = Gateway::start(&text(0, "second-key-a"));
    let file = gateway.config_file();
    let done = std::sync::atomic::AtomicBool::new(false);
    let asking = async {
        let mut n = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let (status, body) = gateway.ask_with_key(Some("the-first-key")).await;
            assert_eq!(status, 200, "{body}");
            n += 1;
        }
        n
    };
    let swapping = async {
        for order in 1..=100 {
            fs::write(
                &file,
                text(
                    order,
                    if order % 2 == 0 {
                        "second-key-a"
                    } else {
                        "second-key-b"
                    },
                ),
            )
            .unwrap();
            gateway.signal(libc::SIGHUP);
            let line = "plugins reloaded: 1 new, 0 failed";
            gateway.logged(line, order).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (n, ()) = tokio::join!(asking, swapping);
    assert!(n >= 50, "{n} requests");
    assert_eq!(gateway.ask_with_key(Some("second-key-b")).await.0, 401);
    assert_eq!(gateway.ask_with_key(Some("second-key-a")).await.0, 200);

    // What is wrong changes nothing.
    fs::write(&file, "[auth]\nmode = \"maybe\"").unwrap();
    gateway.signal(libc::SIGHUP);
    gateway.wait_for_log("the configuration stays as it was");
    assert_eq!(gateway.ask_with_key(Some("second-key-a")).await.0, 200);
}

#[tokio::test]
async fn a_changed_file_is_loaded_without_a_signal_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("p.wasm");
    fs::copy(guest("hostile"), &component).unwrap();
    let gateway = Gateway::start(&tiny_config(&format!(
        "[plugins.p]\npath = {component:?}\nhooks = [\"preprocess\"]"
    )));
    let replace = |bytes: &[u8]| {
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, bytes).unwrap();
        fs::rename(&fresh, &component).unwrap();
    };
    replace(b"\0asm broken");
    gateway.wait_for_log("what was loaded before still serves");
    assert_eq!(gateway.ask_with_key(None).await.0, 200);
    replace(&fs::read(guest("text-normalize")).unwrap());
    gateway.wait_for_log("plugins reloaded: 1 new, 0 failed");
    assert_eq!(gateway.ask_with_key(None).await.0, 200);
}

#[tokio::test]
async fn nothing_is_embedded_that_a_preprocessor_has_not_seen() {
    let redact = guest("pii-redact");
    let start = |more: &str| {
        let plugin = format!("[plugins.redact]\npath = {redact:?}\n{more}");
        Gateway::start(&tiny_config(&plugin))
    };
    let gateway = start("");
    let (secret, shown) = ("mail alice.smith@example.com", "mail [EMAIL]");
    let plain = Gateway::start(&tiny_config(""));
    let redacted = plain.vectors("tiny", &json!([shown])).await;
    assert_eq!(gateway.vectors("tiny", &json!([secret])).await, redacted);
    // Ids of OpenAI's vocabulary are shown as text.
    let ids = tiktoken_rs::cl100k_base_singleton().encode_ordinary(secret);
    assert_eq!(gateway.vectors("tiny", &json!([ids])).await, redacted);
    // The model's own are not, alone or beside texts.
    let mixed = [
        json!([secret, [5, 6]]),
        json!([[5, 6], secret]),
        json!([[5, 6]]),
    ];
    for path in ["/embed", "/"] {
        for inputs in &mixed {
            let answer = gateway.ask(path, &json!({"inputs": inputs})).await;
            assert_eq!(answer.status, 422, "{path} {inputs}: {}", answer.body);
            let message = answer.body["error"].as_str().unwrap();
            assert!(message.contains("native_ids"), "{message}");
        }
    }
    let gateway = start("native_ids = \"show\"");
    let alone = gateway.ok("/embed", &json!({"inputs": [[5, 6]]})).await;
    assert_eq!(alone[0].as_array().unwrap().len(), 64);
    for inputs in &mixed[..2] {
        let answer = gateway.ask("/embed", &json!({"inputs": inputs})).await;
        assert_eq!(answer.status, 422, "{inputs}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_plugin_whose_every_call_fails_does_not_take_the_place_of_one_that_works() {
    let path = guest("hostile");
    let text = |settings: &str| {
        tiny_config(&format!(
            "[plugins.p]\npath = {path:?}\nhooks = [\"preprocess\"]\nsettings = {{ {settings} }}\n"
        ))
    };
    let gateway = Gateway::start(&text(""));
    for attack in ["trap", "loop"] {
        let broken = text(&format!("every_call = \"{attack}\""));
        fs::write(gateway.config_file(), broken).unwrap();
        gateway.signal(libc::SIGHUP);
        gateway
            .logged("its first call fails", if attack == "trap" { 1 } else { 2 })
            .await;
        assert_eq!(gateway.ask_with_key(None).await.0, 200, "{attack}");
    }
}
