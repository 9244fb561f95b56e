//! Guests in the whole gateway, over a mock model: what they may, what they may not, and what becomes of the rest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use embedgate_config::{HttpConfig, InstanceConfig, KvConfig, OnError, Period, PluginConfig};
use embedgate_plugin_host::{Plugins, Reloaded, SKIPPED};
use embedgate_request::Hook;
use serde_json::{Value, json};

use super::{Answer, TestGateway};

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("plugins/built")
        .join(format!("{name}.wasm"))
}

fn config(name: &str) -> PluginConfig {
    PluginConfig {
        path: built(name),
        headers: ["x-attack", "x-url"].map(str::to_owned).into(),
        ..PluginConfig::default()
    }
}

/// A gateway with the guest that attacks, as authenticator alone or as preprocessor alone.
struct Hostile {
    gateway: TestGateway,
    hook: Hook,
}

impl Hostile {
    fn with(hook: Hook, change: impl FnOnce(&mut PluginConfig)) -> Self {
        let mut hostile = PluginConfig {
            hooks: Some(vec![hook]),
            ..config("hostile")
        };
        change(&mut hostile);
        let gateway = TestGateway::with(|setup| {
            if hook == Hook::Authenticate {
                setup.config.auth.mode = None;
            }
            setup.config.plugins.insert("hostile".into(), hostile);
        });
        Self { gateway, hook }
    }

    fn new(hook: Hook) -> Self {
        Self::with(hook, |_| {})
    }

    async fn attack(&self, attack: &str) -> Answer {
        match self.hook {
            Hook::Authenticate => self.request(&[("x-attack", attack)], json!("a")).await,
            _ => {
                self.request(&[], json!([format!("attack:{attack}"), "b"]))
                    .await
            }
        }
    }

    async fn request(&self, headers: &[(&str, &str)], input: Value) -> Answer {
        let body = json!({"model": "m", "input": input});
        self.gateway.post(headers, &body).await
    }

    fn plugins(&self) -> &Plugins {
        &self.gateway.gateway.plugins
    }

    /// Returns the number of the plugin's own metric updates that were dropped.
    fn n_dropped(&self) -> u64 {
        let metrics = self.gateway.gateway.metrics.plugin("hostile");
        metrics.custom_dropped.get()
    }

    /// Counts the calls that failed in this way.
    fn n_errors(&self, kind: &str) -> usize {
        let text = self.gateway.gateway.metrics.text();
        let line = format!(
            "embedgate_plugin_errors_total{{plugin=\"hostile\",hook=\"{}\",kind=\"{kind}\"}} ",
            self.hook.name()
        );
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0, |n| n.parse().unwrap())
    }

    /// Asserts that each attack ends its own call in this way, and that the next request is served.
    async fn contains(&self, attacks: &[&str], kind: &str) {
        for attack in attacks {
            let before = self.n_errors(kind);
            let answer = self.attack(attack).await;
            let code = match self.hook {
                Hook::Authenticate => "auth_plugin_failed",
                _ => "plugin_failed",
            };
            let hook = self.hook;
            assert_eq!(
                (answer.status, answer.code()),
                (503, code),
                "{hook:?} {attack}"
            );
            assert_eq!(self.n_errors(kind), before + 1, "{hook:?} {attack}");
            assert_eq!(
                self.attack("ok").await.status,
                200,
                "{hook:?} after {attack}"
            );
        }
    }
}

const BOTH: [Hook; 2] = [Hook::Authenticate, Hook::Preprocess];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_take_too_long_are_stopped() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| config.timeout = Period::milliseconds(20));
        hostile.contains(&["loop"], "timeout").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_take_too_much_memory_are_stopped() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| config.timeout = Period::seconds(10));
        hostile
            .contains(&["memory-bomb", "huge-result"], "memory")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_trap_end_their_own_request_alone() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| {
            config.timeout = Period::seconds(10);
            config.grants.kv = Some(KvConfig::default());
        });
        let attacks = [
            "recursion",
            "trap",
            "panic",
            "out-of-bounds",
            "random-huge",
            "loop-in-host-call",
            "kv-spam",
        ];
        hostile.contains(&attacks, "trap").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_authenticators_that_break_the_rules_let_nobody_in() {
    let hostile = Hostile::new(Hook::Authenticate);
    let attacks = [
        "bad-status 200",
        "bad-status 0",
        "bad-status 399",
        "bad-status 600",
        "bad-status 65535",
        "bad-header set-cookie",
        "bad-header content-length",
        "bad-header x-embedgate-lane",
        "bad-header x-request-id",
        "bad-header-crlf",
        "bad-value-crlf",
        "many-headers",
        "long-code",
        "empty-code",
        "bad-code",
        "empty-subject",
        "long-subject",
        "control-subject",
        "huge-attributes",
        "many-attributes",
        "unknown-limit",
    ];
    hostile.contains(&attacks, "output").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_preprocessors_that_break_the_rules_change_nothing() {
    let hostile = Hostile::new(Hook::Preprocess);
    let attacks = [
        "wrong-count",
        "no-texts",
        "bad-index",
        "duplicate-index",
        "bad-response-header set-cookie",
        "bad-response-header x-embedgate-x",
        "bad-response-header-crlf",
        "bad-response-value-crlf",
        "zero-dimensions",
        "empty-model",
        "bad-status 302",
        "bad-code",
    ];
    hostile.contains(&attacks, "output").await;
    // A million texts for two: over the memory or the number, as the limit is.
    assert_eq!(hostile.attack("many-small-results").await.status, 503);
    // What is legal and wrong is the client's to read.
    let answer = hostile.attack("huge-dimensions").await;
    assert_eq!(
        (answer.status, answer.message().contains("4294967295")),
        (400, true)
    );
    assert_eq!(
        hostile.attack("model other").await.code(),
        "model_not_found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_reach_the_client() {
    let hostile = Hostile::new(Hook::Authenticate);
    assert_eq!(hostile.attack("ok").await.status, 200);
    let unknown = hostile.attack("none").await;
    assert_eq!((unknown.status, unknown.code()), (401, "invalid_api_key"));
    assert!(unknown.headers.contains_key("www-authenticate"));
    let refused = hostile.attack("reject").await;
    assert_eq!(
        (refused.status, refused.message()),
        (400, "refused, as told")
    );
    let hidden = hostile.attack("reject-5xx").await;
    assert_eq!(hidden.status, 503);
    assert!(
        !hidden.message().contains("not for the caller"),
        "{}",
        hidden.message()
    );

    let hostile = Hostile::new(Hook::Preprocess);
    let answer = hostile.attack("ok").await;
    assert_eq!(answer.headers["x-hostile"], "ok");
    assert_eq!(hostile.attack("reject").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_guest_outlives_a_call_unless_it_is_used_again() {
    let count = |answer: &Answer| answer.headers["x-count"].to_str().unwrap().to_owned();
    let hostile = Hostile::new(Hook::Preprocess);
    for _ in 0..3 {
        assert_eq!(count(&hostile.attack("count").await), "1");
    }
    let reused = Hostile::with(Hook::Preprocess, |config| {
        config.instance = InstanceConfig::Reuse(2.try_into().unwrap());
    });
    let mut counts = Vec::new();
    for _ in 0..4 {
        counts.push(count(&reused.attack("count").await));
    }
    // The first instance has had its init, which counts as a call.
    assert_eq!(counts, ["1", "1", "2", "1"]);
    // One that trapped is not used again.
    assert_eq!(reused.attack("trap").await.status, 503);
    assert_eq!(count(&reused.attack("count").await), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preprocessor_that_may_fail_is_skipped_and_the_answer_says_so() {
    let hostile = Hostile::with(Hook::Preprocess, |config| config.on_error = OnError::Skip);
    for attack in ["trap", "wrong-count"] {
        let answer = hostile.attack(attack).await;
        assert_eq!(answer.status, 200, "{attack}");
        assert_eq!(answer.headers[SKIPPED], "hostile");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_time_is_no_failure_of_the_plugin() {
    let hostile = Hostile::with(Hook::Authenticate, |config| {
        config.timeout = Period::seconds(10)
    });
    let headers = [("x-attack", "loop"), ("x-request-timeout-ms", "20")];
    let answer = hostile.request(&headers, json!("a")).await;
    assert_eq!((answer.status, answer.code()), (504, "deadline_exceeded"));
    assert_eq!(hostile.n_errors("timeout"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_beyond_the_places_waits_and_then_is_refused_as_busy() {
    let hostile = Hostile::with(Hook::Preprocess, |config| {
        config.timeout = Period::milliseconds(200);
        config.max_instances = 1;
    });
    let held = hostile.plugins().hold_instance("hostile").unwrap();
    let answer = hostile.attack("ok").await;
    assert_eq!((answer.status, answer.code()), (503, "plugin_busy"));
    assert!(answer.headers.contains_key("retry-after"));
    drop(held);
    assert_eq!(hostile.attack("ok").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_give_what_was_granted() {
    let granted = Hostile::with(Hook::Authenticate, |config| {
        // Ten thousand calls of the host, on a machine that may be busy.
        config.timeout = Period::milliseconds(10_000);
        config.grants = toml::from_str(
            "secrets = { PEPPER = \"hot\" }\nkv = {}\nmetrics = [\"lookups\"]\ncrypto = {}",
        )
        .unwrap();
    });
    let says = async |attack: &str| granted.attack(attack).await.message().to_owned();
    assert_eq!(says("secrets-get PEPPER").await, "hot");
    assert_eq!(says("secrets-get OTHER").await, "none");
    assert_eq!(says("kv-add n").await, "Ok(1)");
    assert_eq!(says("kv-add n").await, "Ok(2)");
    assert_eq!(says("kv-set x").await, "Ok(())");
    assert_eq!(says("kv-get x").await, format!("{:?}", b"set"));
    assert!(says("kv-take b").await.contains("taken: true"));
    assert!(says("kv-huge-key").await.contains("too-large"));
    assert!(says("kv-huge-value").await.contains("too-large"));
    assert!(says("jwt a.b.c").await.contains("unknown-issuer"));
    for attack in ["metrics-cardinality", "metrics-undeclared", "metrics-forge"] {
        assert_eq!(granted.attack(attack).await.status, 200, "{attack}");
    }
    // Of 10,000 label sets 100 are kept; one undeclared name; one illegal label and one NaN.
    assert_eq!(granted.n_dropped(), 9_900 + 1 + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_give_nothing_that_was_not_granted() {
    let bare = Hostile::new(Hook::Authenticate);
    let refused = bare.attack("secrets-get PATH").await;
    assert_eq!(refused.message(), "none");
    let denied = bare.attack("http-any http://127.0.0.1:1/").await;
    assert!(denied.message().contains("denied"), "{}", denied.message());
    bare.contains(
        &["kv-set x", "kv-get x", "kv-add x", "kv-take x", "jwt a.b.c"],
        "trap",
    )
    .await;
    assert_eq!(bare.attack("metrics-undeclared").await.status, 200);
    assert_eq!(bare.n_dropped(), 1);
}

/// A server that answers each connection with these bytes, or keeps it open for ever.
async fn server(answer: Option<&'static str>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            drop(stream.read(&mut head).await);
            if let Some(answer) = answer {
                drop(stream.write_all(answer.as_bytes()).await);
            } else {
                open.push(stream);
            }
        }
    });
    url
}

fn with_http(config: &mut PluginConfig, url: &str) {
    config.grants.http = Some(HttpConfig {
        allow: vec![url.to_owned()],
        allow_private: true,
        ..HttpConfig::default()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_plugins_go_where_the_grant_says_and_redirects_are_not_followed() {
    let url = server(Some("HTTP/1.1 302 Found\r\nlocation: http://evil/\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")).await;
    let hostile = Hostile::with(Hook::Authenticate, |config| with_http(config, &url));
    let says = async |attack: String| hostile.attack(&attack).await.message().to_owned();
    assert_eq!(
        says(format!("http-any {url}path?q=1")).await,
        "302 http://evil/ hi"
    );
    assert!(
        says("http-any http://127.0.0.1:1/".into())
            .await
            .contains("denied")
    );
    assert!(says("http-any not a url".into()).await.contains("invalid"));
    let many = says(format!("http-many {url}")).await;
    assert!(many.starts_with("2 ") && many.contains("budget"), "{many}");
    assert!(
        says(format!("http-bad-header {url}"))
            .await
            .contains("invalid")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_costs_the_plugin_its_time_and_no_more() {
    let url = server(None).await;
    let hostile = Hostile::with(Hook::Authenticate, |config| {
        with_http(config, &url);
        config.timeout = Period::milliseconds(50);
    });
    let answer = hostile.attack(&format!("http-slow {url}")).await;
    // Whichever of the two timers is first: the request's to the server is cut to the call's.
    assert!(matches!(answer.status, 400 | 503), "{}", answer.status);
    assert_eq!(hostile.attack("ok").await.status, 200);
    let free = hostile.plugins().free_instances("hostile");
    assert_eq!(free.unwrap()[0], 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principals_models_lane_and_limit_are_enforced() {
    let mut plugin = config("hostile");
    plugin.hooks = Some(vec![Hook::Authenticate]);
    let gateway = TestGateway::with(|setup| {
        setup.config.auth.mode = None;
        let limits =
            "[limits.one]\nrequests_per_minute = 1\n[limits.tokens]\ntokens_per_minute = 1";
        setup.config.auth = toml::from_str(limits).unwrap();
        setup.config.plugins.insert("hostile".into(), plugin);
    });
    let ask = async |attack: &str| {
        let body = json!({"model": "m", "input": "a"});
        gateway.post(&[("x-attack", attack)], &body).await
    };
    assert_eq!(ask("models m").await.status, 200);
    assert_eq!(ask("models x,m*").await.status, 200);
    let refused = ask("models other").await;
    assert_eq!((refused.status, refused.code()), (403, "model_not_allowed"));
    assert_eq!(ask("limit one").await.status, 200);
    let limited = ask("limit one").await;
    assert_eq!(
        (limited.status, limited.code()),
        (429, "rate_limit_exceeded")
    );
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(ask("limit tokens").await.status, 200);
    assert_eq!(ask("limit tokens").await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_is_remembered_for_the_same_head_alone() {
    let hostile = Hostile::new(Hook::Authenticate);
    let calls = || {
        let text = hostile.gateway.gateway.metrics.text();
        let line = "embedgate_plugin_calls_total{plugin=\"hostile\",hook=\"authenticate\"} ";
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.unwrap().parse::<u32>().unwrap()
    };
    for expected in [1, 1, 1] {
        assert_eq!(hostile.attack("ok-valid").await.status, 200);
        assert_eq!(calls(), expected);
    }
    let other = [("x-attack", "ok-valid"), ("x-url", "another")];
    assert_eq!(hostile.request(&other, json!("a")).await.status, 200);
    assert_eq!(calls(), 2);
    hostile.gateway.gateway.plugins.forget_callers();
    assert_eq!(hostile.attack("ok-valid").await.status, 200);
    assert_eq!(calls(), 3);
    // What allows nothing is asked about each time.
    for expected in [4, 5] {
        assert_eq!(hostile.attack("ok").await.status, 200);
        assert_eq!(calls(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_see_texts_where_clients_send_their_token_ids() {
    let bpe = tiktoken_rs::cl100k_base().unwrap();
    let ids = bpe.encode_ordinary("attack:ok");
    let gateway = TestGateway::with(|setup| {
        let mut plugin = config("hostile");
        plugin.hooks = Some(vec![Hook::Preprocess]);
        setup.config.plugins.insert("hostile".into(), plugin);
        let model = embedgate_config::ModelConfig {
            token_ids: Some(embedgate_request::TokenIds::Cl100k),
            ..embedgate_config::ModelConfig::default()
        };
        setup.config.models.insert("m".into(), model);
    });
    let body = json!({"model": "m", "input": [ids]});
    let answer = gateway.post(&[], &body).await;
    assert_eq!(answer.headers.get("x-hostile").unwrap(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_are_told_of_every_request() {
    let mut observer = config("hostile");
    observer.hooks = Some(vec![Hook::Observe]);
    let gateway = TestGateway::with(|setup| {
        setup.config.plugins.insert("hostile".into(), observer);
    });
    assert_eq!(gateway.embed(json!("a")).await.status, 200);
    let calls = "embedgate_plugin_calls_total{plugin=\"hostile\",hook=\"observe\"} 1";
    gateway.gateway.plugins.stop().await;
    assert!(gateway.gateway.metrics.text().contains(calls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_of_plugins_fails_no_request() {
    let plugin = |order| PluginConfig {
        hooks: Some(vec![Hook::Preprocess]),
        order,
        ..config("hostile")
    };
    let gateway = TestGateway::with(|setup| {
        setup.config.plugins.insert("hostile".into(), plugin(0));
    });
    let plugins = Arc::clone(&gateway.gateway.plugins);
    let swapping = tokio::task::spawn_blocking(move || {
        for order in 1..=20 {
            let swapped = plugins.load(&[("hostile".to_owned(), plugin(order))].into());
            assert_eq!((swapped.loaded.len(), swapped.failed.len()), (1, 0));
        }
    });
    let mut n = 0;
    while !swapping.is_finished() {
        let answer = gateway.embed(json!(["attack:ok", n.to_string()])).await;
        assert_eq!(
            (answer.status, &answer.headers["x-hostile"]),
            (200, &"ok".parse().unwrap())
        );
        n += 1;
    }
    swapping.await.unwrap();
    assert!(n > 20, "{n} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_loaded_leaves_the_old_version_serving_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.wasm");
    std::fs::copy(built("hostile"), &path).unwrap();
    let plugin = PluginConfig {
        path: path.clone(),
        hooks: Some(vec![Hook::Preprocess]),
        ..config("hostile")
    };
    let configs: BTreeMap<_, _> = [("p".to_owned(), plugin.clone())].into();
    let gateway = TestGateway::with(|setup| setup.config.plugins = configs.clone());
    let plugins = &gateway.gateway.plugins;
    let load = |configs: &BTreeMap<String, PluginConfig>| {
        tokio::task::block_in_place(|| plugins.load(configs))
    };
    assert_eq!(load(&configs), Reloaded::default(), "nothing has changed");

    std::fs::write(&path, b"not wasm").unwrap();
    let renamed = [("q".to_owned(), plugin)].into();
    for configs in [&configs, &renamed] {
        let reloaded = load(configs);
        assert_eq!(
            (
                reloaded.loaded.len(),
                reloaded.removed.len(),
                reloaded.failed.len()
            ),
            (0, 0, 1)
        );
        let answer = gateway.embed(json!(["attack:ok"])).await;
        assert_eq!(answer.headers["x-hostile"], "ok");
    }
    let gone = load(&BTreeMap::new());
    assert_eq!(gone.removed, ["p"]);
    assert!(
        !gateway
            .embed(json!(["attack:ok"]))
            .await
            .headers
            .contains_key("x-hostile")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_loses_a_hook_or_never_ends_does_not_take_the_place_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.wasm");
    std::fs::copy(built("hostile"), &path).unwrap();
    let plugin = PluginConfig {
        path: path.clone(),
        ..config("hostile")
    };
    let configs: BTreeMap<_, _> = [("p".to_owned(), plugin)].into();
    let gateway = TestGateway::with(|setup| {
        setup.config.auth.mode = None;
        setup.config.plugins = configs.clone();
    });
    let plugins = &gateway.gateway.plugins;
    let load = || tokio::task::block_in_place(|| plugins.load(&configs).failed);

    std::fs::remove_file(&path).unwrap();
    std::fs::copy(built("text-normalize"), &path).unwrap();
    let failed = load();
    assert!(failed[0].contains("has no hook authenticate"), "{failed:?}");
    assert!(plugins.has_authenticators());

    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let failed = load();
    assert!(failed[0].contains("is no regular file"), "{failed:?}");
    assert!(plugins.has_authenticators());
}

/// Loads one plugin alone, and returns what it has against it.
async fn refusal_of(config: PluginConfig) -> String {
    let gateway = TestGateway::start();
    let plugins = Arc::clone(&gateway.gateway.plugins);
    let configs = [("p".to_owned(), config)].into();
    let load = tokio::task::spawn_blocking(move || plugins.load(&configs));
    let mut failed = load.await.unwrap().failed;
    assert_eq!(failed.len(), 1);
    failed.remove(0)
}

async fn refusal_of_bytes(bytes: impl AsRef<[u8]>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.wasm");
    std::fs::write(&path, bytes).unwrap();
    refusal_of(PluginConfig {
        path,
        ..PluginConfig::default()
    })
    .await
}

/// A component around a core module that says it has a hook.
fn component(module: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(component
            (core module $m {module})
            (core instance (instantiate $m))
            (instance $hook)
            (export "embedgate:plugin/observer@0.1.0" (instance $hook)))"#
    ))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_plugin_are_refused_by_what_they_are() {
    let importing = |name: &str| {
        let hook =
            r#"(instance $hook) (export "embedgate:plugin/observer@0.1.0" (instance $hook))"#;
        wat::parse_str(format!("(component (import \"{name}\" (instance)) {hook})")).unwrap()
    };
    let cases = [
        (b"hello".to_vec(), "is no WebAssembly component"),
        (Vec::new(), "is no WebAssembly component"),
        (wat::parse_str("(module)").unwrap(), "is a core module"),
        (wat::parse_str("(component)").unwrap(), "exports no hook"),
        (b"\x7fELF\x02\x01".to_vec(), "machine code"),
        (
            importing("acme:thing/x@1.0.0"),
            "imports acme:thing/x@1.0.0",
        ),
        (
            importing("wasi:sockets/tcp@0.2.6"),
            "embedgate:plugin/http alone",
        ),
        (
            importing("wasi:http/outgoing-handler@0.2.6"),
            "embedgate:plugin/http alone",
        ),
        (importing("embedgate:plugin/kv@0.2.0"), "another version"),
        (
            importing("embedgate:plugin/teleport@0.1.0"),
            "imports embedgate:plugin/teleport",
        ),
        // Names are right, and nothing behind them.
        (component(""), "authenticat"),
    ];
    for (bytes, expected) in cases {
        let refusal = refusal_of_bytes(bytes).await;
        if expected == "authenticat" {
            assert!(refusal.contains("observe"), "{refusal}");
        } else {
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.wasm");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(50 << 20)
        .unwrap();
    let refusal = refusal_of(PluginConfig {
        path,
        ..PluginConfig::default()
    })
    .await;
    assert!(refusal.contains("52428800 bytes"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_that_attack_when_they_begin_are_refused() {
    let cases = [
        ("(func $s (loop (br 0))) (start $s)", "takes longer than"),
        ("(func $s unreachable) (start $s)", "unreachable"),
        ("(memory 65536)", "memory"),
        ("(table 10000000 funcref)", "table"),
        (
            "(memory 1) (func $s (loop (drop (memory.grow (i32.const 1))) (br 0))) (start $s)",
            "max_memory of 32MiB",
        ),
        ("(func $s (call $s)) (start $s)", "stack"),
    ];
    for (module, expected) in cases {
        let refusal = refusal_of_bytes(component(module)).await;
        assert!(refusal.contains(expected), "{module}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_refused_or_run_as_bounded_as_any() {
    let good = std::fs::read(built("hostile")).unwrap();
    for length in [8, 100, good.len() / 2, good.len() - 1] {
        let refusal = refusal_of_bytes(&good[..length]).await;
        assert!(refusal.starts_with("plugins.p: "), "{length}: {refusal}");
    }
    // A flipped bit may leave a valid component: what must not be is a crash.
    let mut n_refused = 0;
    for i in (0..good.len()).step_by(good.len() / 8) {
        let mut bad = good.clone();
        bad[i] ^= 0x10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.wasm");
        std::fs::write(&path, &bad).unwrap();
        let configs = [(
            "p".to_owned(),
            PluginConfig {
                path,
                ..PluginConfig::default()
            },
        )]
        .into();
        let gateway = TestGateway::start();
        let plugins = Arc::clone(&gateway.gateway.plugins);
        let load = tokio::task::spawn_blocking(move || plugins.load(&configs));
        n_refused += load.await.unwrap().failed.len();
    }
    assert!(n_refused > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_does_not_begin_is_refused_with_its_own_words() {
    let attacks = [
        ("reject", "the settings are refused"),
        ("loop", "takes longer than 300ms"),
        ("loop-in-host-call", "calls of the host"),
        ("trap", "unreachable"),
        ("memory-bomb", "max_memory of 32MiB"),
        ("recursion", "out of bounds"),
        ("kv-set x", "cannot be called from lifecycle.init"),
        (
            "http-any http://127.0.0.1/",
            "cannot be called from lifecycle.init",
        ),
        ("metrics-undeclared", "cannot be called from lifecycle.init"),
    ];
    for (attack, expected) in attacks {
        let mut plugin = config("hostile");
        plugin.settings.insert("attack".into(), attack.into());
        let refusal = refusal_of(plugin).await;
        assert!(refusal.contains(expected), "{attack}: {refusal}");
    }
    let mut plugin = config("hostile");
    plugin.settings.insert("unknown".into(), 1.into());
    assert!(refusal_of(plugin).await.contains("unknown field `unknown`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_does_not_fit_the_component_is_refused() {
    let mut pinned = config("hostile");
    pinned.sha256 = Some("0".repeat(64));
    assert!(refusal_of(pinned).await.contains("embedgate plugin pin"));
    let mut hook = config("text-normalize");
    hook.hooks = Some(vec![Hook::Authenticate]);
    let refusal = refusal_of(hook).await;
    assert!(
        refusal.contains("has no hook authenticate: it has preprocess"),
        "{refusal}"
    );
    let mut missing = config("hostile");
    missing.path = "nowhere.wasm".into();
    assert!(
        refusal_of(missing)
            .await
            .contains("nowhere.wasm cannot be read")
    );
    let mut files = config("hostile");
    files
        .settings_files
        .insert("keys".into(), "nowhere.txt".into());
    assert!(refusal_of(files).await.contains("settings_files.keys"));
    let mut jwks = config("hostile");
    let grants = "crypto.issuers.main = { jwks = \"nowhere.json\" }";
    jwks.grants = toml::from_str(grants).unwrap();
    assert!(
        refusal_of(jwks)
            .await
            .contains("grants.crypto.issuers.main")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_leave_no_instance_and_no_place_taken() {
    let plugin = |hook, order| PluginConfig {
        hooks: Some(vec![hook]),
        order,
        ..config("hostile")
    };
    let gateway = TestGateway::with(|setup| {
        setup.config.auth.mode = None;
        setup.config.plugins = [
            ("a".into(), plugin(Hook::Authenticate, 0)),
            ("b".into(), plugin(Hook::Preprocess, 1)),
            ("c".into(), plugin(Hook::Preprocess, 2)),
        ]
        .into();
    });
    let body = json!({"model": "m", "input": "attack:ok"});
    for _ in 0..500 {
        let answer = gateway.post(&[("x-attack", "ok")], &body).await;
        assert_eq!(answer.status, 200);
    }
    for plugin in ["a", "b", "c"] {
        let free = gateway.gateway.plugins.free_instances(plugin);
        assert_eq!(free, Some([64, embedgate_config::MOST_INSTANCES]));
    }
}
