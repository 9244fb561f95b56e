//! Files and settings that are refused at the load, each with its reason.

use std::sync::Arc;

use embedgate_config::PluginConfig;
use embedgate_request::Hook;

use super::{built, config};
use crate::testing::TestGateway;

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
