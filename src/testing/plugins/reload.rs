//! Plugins that are exchanged while requests go on.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_config::PluginConfig;
use embedgate_plugin_host::Reloaded;
use embedgate_request::Hook;
use serde_json::json;

use super::{built, config};
use crate::testing::TestGateway;

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
