//! Models that change while the gateway serves: what a reload loads, keeps, refuses and says, and what requests see of it.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use embedgate_test_support::{
    Answer, Gateway, client, copy, fixtures, max_difference, names, texts, tiny_bge_m3, word_after,
};
use serde_json::{Value, json};

/// A key that may reload, and one that may not.
const AUTH: &str = "keys = [{ key = \"admin-key\", admin = true }, \"other-key\"]";
const ADMIN: &str = "admin-key";

/// A model of a configuration.
fn model(name: &str, path: &Path, more: &str) -> String {
    format!("[models.{name}]\npath = {path:?}\nbackend = {{ threads = 1 }}\n{more}\n")
}

fn config(models: &[String]) -> String {
    format!(
        "[auth]\n{AUTH}\n[log]\nformat = \"json\"\n{}",
        models.concat()
    )
}

async fn reload(gateway: &Gateway) -> Answer {
    send(gateway, "/admin/reload", ADMIN, &Value::Null).await
}

async fn send(gateway: &Gateway, path: &str, key: &str, body: &Value) -> Answer {
    let request = client().post(format!("{}{path}", gateway.url));
    let request = request.bearer_auth(key).body(body.to_string());
    Answer::of(request.send().await.unwrap()).await
}

async fn embed(gateway: &Gateway, model: &str, input: &Value) -> Answer {
    let body = json!({"model": model, "input": input});
    send(gateway, "/v1/embeddings", ADMIN, &body).await
}

fn write(gateway: &Gateway, text: &str) {
    let file = gateway.config_file();
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, &file).unwrap();
}

/// The status of each model in a report, in the order of the names.
fn statuses(answer: &Answer) -> Vec<(String, String)> {
    let models = answer.body["models"].as_object().unwrap();
    let status = |(name, change): (&String, &Value)| {
        (name.clone(), change["status"].as_str().unwrap().to_owned())
    };
    models.iter().map(status).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, status): &(&str, &str)| ((*name).to_owned(), (*status).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn a_reload_loads_what_changed_and_says_what_became_of_each_model() {
    let reranker = fixtures().join("tiny-bert-reranker");
    let before = [
        model("a", &tiny_bge_m3(), ""),
        model("b", &tiny_bge_m3(), "aliases = [\"old\"]"),
        model("c", &reranker, ""),
    ];
    let gateway = Gateway::start(&config(&before));
    let long = json!(texts().join(" "));
    let whole = embed(&gateway, "a", &long).await.vectors();

    let unchanged = reload(&gateway).await;
    assert_eq!(unchanged.status, 200, "{}", unchanged.body);
    let kept = [("a", "kept"), ("b", "kept"), ("c", "kept")];
    assert_eq!(statuses(&unchanged), pairs(&kept));

    // One is cut earlier, one has another alias, one is gone, one is new.
    let after = [
        model("a", &tiny_bge_m3(), "max_length = 16"),
        model("b", &tiny_bge_m3(), "aliases = [\"new\"]\ntruncate = false"),
        model("d", &fixtures().join("tiny-xlmr-reranker"), ""),
    ];
    let text = config(&after) + "[server]\nmax_inputs = 7\nlisten = \"127.0.0.1:1\"\n";
    write(&gateway, &text);
    let changed = reload(&gateway).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let expected = [
        ("a", "exchanged"),
        ("b", "adjusted"),
        ("c", "removed"),
        ("d", "added"),
    ];
    assert_eq!(statuses(&changed), pairs(&expected));
    // The address is the command line's.
    assert_eq!(changed.body["needs_restart"], json!(["server.max_inputs"]));
    let cut = embed(&gateway, "a", &long).await;
    assert!(max_difference(&cut.vectors()[0], &whole[0]) > 1e-3);
    assert_eq!(embed(&gateway, "new", &json!("a")).await.status, 200);
    assert_eq!(embed(&gateway, "old", &json!("a")).await.status, 404);
    assert_eq!(
        embed(&gateway, "b", &long).await.status,
        400,
        "it is not cut any more"
    );
    assert_eq!(embed(&gateway, "c", &json!("a")).await.status, 404);
    let body = json!({"model": "d", "query": "a", "documents": ["a", "b"]});
    assert_eq!(send(&gateway, "/v1/rerank", ADMIN, &body).await.status, 200);
    let log = gateway.log();
    assert_eq!(log.matches("loading model b ").count(), 1, "{log}");
    // What is counted of those that are gone stays, their state does not.
    let metrics = gateway.metrics().await;
    assert!(metrics.contains_key("embedgate_model_ready{model=\"d\"}"));
    assert!(!metrics.contains_key("embedgate_model_ready{model=\"c\"}"));
}

#[tokio::test]
async fn what_cannot_be_loaded_changes_nothing_and_is_named() {
    let gateway = Gateway::start(&config(&[model("a", &tiny_bge_m3(), "")]));
    let before = embed(&gateway, "a", &json!("text")).await.vectors();

    write(
        &gateway,
        "[auth]\nmode = \"maybe\"\n[models.a]\nmax_length = 1\n[colour]\n",
    );
    let refused = reload(&gateway).await;
    assert_eq!(
        (refused.status, &refused.body["status"]),
        (422, &json!("refused"))
    );
    let problems = refused.body["problems"].to_string();
    for part in ["auth.mode", "models.a.path", "max_length", "colour"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }

    // The folder is there, and is no model.
    let empty = tempfile::tempdir().unwrap();
    let models = [
        model("a", empty.path(), "aliases = [\"x\"]"),
        model("b", empty.path(), ""),
        model("c", &tiny_bge_m3(), ""),
    ];
    write(&gateway, &config(&models));
    let partly = reload(&gateway).await;
    assert_eq!(
        (partly.status, &partly.body["status"]),
        (422, &json!("partly"))
    );
    let expected = [("a", "failed"), ("b", "failed"), ("c", "added")];
    assert_eq!(statuses(&partly), pairs(&expected));
    let a = &partly.body["models"]["a"];
    assert_eq!(a["serves_as_before"], json!(true));
    assert!(a["reason"].as_str().unwrap().contains("config.json"), "{a}");
    assert_eq!(embed(&gateway, "a", &json!("text")).await.vectors(), before);
    let failed = embed(&gateway, "b", &json!("text")).await;
    assert_eq!(
        (failed.status, failed.message().contains("config.json")),
        (503, true)
    );
    assert_eq!(embed(&gateway, "c", &json!("text")).await.status, 200);

    // Once it is mended, it is loaded.
    copy(&tiny_bge_m3(), empty.path());
    let mended = reload(&gateway).await;
    let expected = [("a", "exchanged"), ("b", "added"), ("c", "kept")];
    assert_eq!(statuses(&mended), pairs(&expected));
    assert_eq!(embed(&gateway, "x", &json!("text")).await.status, 200);
}

/// Makes another model of a copy: the same weights in layers that normalize otherwise.
fn change_files(folder: &Path) {
    let file = folder.join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replace("1e-05", "1e-02");
    assert_ne!(text, changed);
    std::fs::write(&file, changed).unwrap();
}

#[tokio::test]
async fn files_that_changed_are_loaded_on_a_signal_with_a_word_for_whoever_has_an_index() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(&tiny_bge_m3(), folder.path());
    let state_dir = format!("[server]\nstate_dir = {:?}\n", state.path());
    let text = config(&[model("a", folder.path(), "")]) + &state_dir;
    let gateway = Gateway::start(&text);
    let before = embed(&gateway, "a", &json!("text")).await.vectors();
    change_files(folder.path());
    gateway.signal(libc::SIGHUP);
    gateway.wait_for_log("model a exchanged");
    let now = embed(&gateway, "a", &json!("text")).await.vectors();
    assert!(max_difference(&before[0], &now[0]) > 1e-5);
    gateway.wait_for_log("model a is another than the one that was served under this name before");
    assert!(names(state.path()).contains(&"served.json".to_owned()));
}

#[tokio::test]
async fn only_administrators_reload() {
    let gateway = Gateway::start(&config(&[model("a", &tiny_bge_m3(), "")]));
    for (key, status) in [("other-key", 403), ("no-key-at-all", 401)] {
        let answer = send(&gateway, "/admin/reload", key, &Value::Null).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    // Where no key may, there is no such route.
    let text = config(&[model("a", &tiny_bge_m3(), "")]).replace(", admin = true", "");
    let closed = Gateway::start(&text);
    let answer = send(&closed, "/admin/reload", ADMIN, &Value::Null).await;
    assert_eq!(answer.status, 404, "{}", answer.body);

    // On an address of its own there is nothing else, and pages in browsers may not.
    let open = Gateway::start(&(text + "[server]\nadmin_listen = \"127.0.0.1:0\"\n"));
    let log = open.log();
    let url = word_after(&log, "POST ");
    let answer = Answer::of(client().post(url).send().await.unwrap()).await;
    assert_eq!(
        (answer.status, &answer.body["status"]),
        (200, &json!("reloaded"))
    );
    let page = client().post(url).header("origin", "http://127.0.0.1:8000");
    assert_eq!(page.send().await.unwrap().status(), 403);
    let other = url.replace("/admin/reload", "/v1/models");
    assert_eq!(client().get(other).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_changed_file_is_read_where_that_is_asked_for() {
    let server = "[server]\nreload_on_change = true\n";
    let gateway = Gateway::start(&(config(&[model("a", &tiny_bge_m3(), "")]) + server));
    write(&gateway, "nonsense");
    gateway.wait_for_log("the configuration stays as it was");
    write(
        &gateway,
        &(config(&[model("b", &tiny_bge_m3(), "")]) + server),
    );
    gateway.wait_for_log("model a removed");
    assert_eq!(embed(&gateway, "b", &json!("text")).await.status, 200);
}

/// It is a part of the template that the model's tokenizer puts around texts.
#[tokio::test]
async fn another_prompt_of_a_reranker_is_obeyed() {
    let path = fixtures().join("rerankers/qwen3");
    let with = |more: &str| {
        let more = format!("classifier_from_token = [\"no\", \"yes\"]\n{more}");
        config(&[model("r", &path, &more)])
    };
    let gateway = Gateway::start(&with(""));
    let score = async || {
        let body = json!({"model": "r", "query": "a", "texts": ["b"], "raw_scores": true});
        let answer = send(&gateway, "/rerank", ADMIN, &body).await;
        answer.body[0]["score"].as_f64().unwrap()
    };
    let before = score().await;
    let prompts = "prompts = { other = \"Find what says the opposite\" }\n";
    write(&gateway, &with(prompts));
    assert_eq!(
        statuses(&reload(&gateway).await),
        pairs(&[("r", "adjusted")])
    );
    assert_eq!(score().await, before);
    write(
        &gateway,
        &with(&format!("{prompts}default_prompt = \"other\"\n")),
    );
    assert_eq!(
        statuses(&reload(&gateway).await),
        pairs(&[("r", "exchanged")])
    );
    let after = score().await;
    assert!((after - before).abs() > 1e-3, "{before} {after}");
}

#[tokio::test]
async fn one_that_is_stopped_first_comes_back_where_the_new_one_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny_bge_m3(), folder.path());
    let text = config(&[model("a", folder.path(), "stop_first = true")]);
    let gateway = Gateway::start(&text);
    let before = embed(&gateway, "a", &json!("text")).await.vectors();
    write(
        &gateway,
        &text.replace("stop_first = true", "stop_first = true\nmax_length = 16"),
    );
    let exchanged = reload(&gateway).await;
    assert_eq!(statuses(&exchanged), pairs(&[("a", "exchanged")]));
    gateway.wait_for_log("loading model a from");
    write(
        &gateway,
        &text.replace("stop_first = true", "stop_first = true\nmax_length = 9999"),
    );
    let failed = reload(&gateway).await;
    assert_eq!(statuses(&failed), pairs(&[("a", "failed")]));
    assert_eq!(failed.body["models"]["a"]["serves_as_before"], json!(true));
    assert_eq!(embed(&gateway, "a", &json!("text")).await.vectors(), before);
}

/// The statuses of models in `/readyz`.
async fn ready(gateway: &Gateway) -> Vec<String> {
    let answer = gateway.get("/readyz").await;
    let models = answer.body["models"].as_array().unwrap();
    let status = |model: &Value| model["status"].as_str().unwrap().to_owned();
    models.iter().map(status).collect()
}

#[tokio::test]
async fn models_are_loaded_when_they_are_asked_for_and_leave_for_others() {
    let on_demand = "load = \"on_demand\"";
    let models = [
        model("a", &tiny_bge_m3(), on_demand),
        model("b", &tiny_bge_m3(), on_demand),
    ];
    let text = config(&models);
    let gateway = Gateway::start(&(text.clone() + "[server]\nmax_model_memory = \"1MiB\"\n"));
    assert_eq!(ready(&gateway).await, ["on_demand", "on_demand"]);
    let listed = client()
        .get(format!("{}/v1/models", gateway.url))
        .bearer_auth(ADMIN);
    let listed = Answer::of(listed.send().await.unwrap()).await;
    assert_eq!(listed.body["data"][1]["status"], "on_demand");
    assert_eq!(listed.body["data"][1]["dimensions"], 64);
    let refused = embed(&gateway, "a", &json!("text")).await;
    assert_eq!(refused.status, 503);
    let message = refused.message().to_owned();
    let takes = message.split("takes about ").nth(1).expect(&message);
    let mib: usize = takes.split("MiB").next().unwrap().parse().unwrap();
    assert!(
        message.contains("server.max_model_memory is 1MiB"),
        "{message}"
    );

    // There is room for one of them.
    let server = format!("[server]\nmax_model_memory = \"{}MiB\"\n", mib * 3 / 2);
    write(&gateway, &(text + &server));
    assert_eq!(reload(&gateway).await.status, 200);
    let texts: Vec<Value> = (0..20).map(|i| json!(format!("text {i}"))).collect();
    let asked = texts.iter().map(|text| embed(&gateway, "a", text));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(ready(&gateway).await, ["ready", "on_demand"]);
    // One that failed before, and one for all of these.
    let log = gateway.log();
    assert_eq!(log.matches("loading model a from").count(), 2, "{log}");
    let body = json!({"model": "b", "inputs": "text"});
    for path in ["/tokenize", "/embed"] {
        assert_eq!(
            send(&gateway, path, ADMIN, &body).await.status,
            200,
            "{path}"
        );
        assert_eq!(ready(&gateway).await, ["on_demand", "ready"], "{path}");
    }
    // Who asks for one holds up none that has to leave for it.
    assert!(!gateway.log().contains("still answers requests"));
}

/// Three models of which two fit.
#[tokio::test]
async fn the_limit_counts_at_the_start_and_a_reload_lets_models_on_demand_go() {
    // Each takes between 2 and 3 MiB.
    let short = "max_length = 64";
    let start = [
        model("a", &tiny_bge_m3(), short),
        model("b", &tiny_bge_m3(), short),
        model("c", &tiny_bge_m3(), short),
    ];
    let limit = "[server]\nmax_model_memory = \"6MiB\"\n";
    let gateway = Gateway::start(&(config(&start) + limit));
    let states = ready(&gateway).await;
    let n = |word: &str| states.iter().filter(|state| *state == word).count();
    assert!(n("ready") > 0 && n("failed") > 0, "{states:?}");
    let fit = n("ready");

    // As many as fit, the last on demand, and loaded.
    let mut models: Vec<String> = (0..fit - 1)
        .map(|i| model(&format!("m{i}"), &tiny_bge_m3(), short))
        .collect();
    models.push(model(
        "z",
        &tiny_bge_m3(),
        "max_length = 64\nload = \"on_demand\"",
    ));
    let gateway = Gateway::start(&(config(&models) + limit));
    assert_eq!(embed(&gateway, "z", &json!("a")).await.status, 200);
    assert_eq!(ready(&gateway).await.last().unwrap(), "ready");
    models.push(model("new", &tiny_bge_m3(), short));
    write(&gateway, &(config(&models) + limit));
    let answer = reload(&gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(ready(&gateway).await.last().unwrap(), "on_demand");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains_key("embedgate_model_ready{model=\"new\"}"));
    assert!(!metrics.contains_key("embedgate_model_ready{model=\"z\"}"));
    assert!(!gateway.log().contains("still answers requests"));
}

#[tokio::test]
async fn where_both_do_not_fit_the_reload_says_what_to_do() {
    let limit = "[server]\nmax_model_memory = \"4MiB\"\n";
    let text = |more: &str| config(&[model("a", &tiny_bge_m3(), more)]) + limit;
    let gateway = Gateway::start(&text("max_length = 64"));
    write(&gateway, &text("max_length = 32"));
    let answer = reload(&gateway).await;
    assert_eq!(statuses(&answer), pairs(&[("a", "failed")]));
    let reason = answer.body["models"]["a"]["reason"].as_str().unwrap();
    assert!(reason.contains("stop_first = true"), "{reason}");
    assert_eq!(embed(&gateway, "a", &json!("text")).await.status, 200);
    write(&gateway, &text("max_length = 32\nstop_first = true"));
    let answer = reload(&gateway).await;
    assert_eq!(
        statuses(&answer),
        pairs(&[("a", "exchanged")]),
        "{}",
        answer.body
    );
    assert_eq!(embed(&gateway, "a", &json!("text")).await.status, 200);
}

/// A request holds the model that it uses, and no other.
#[tokio::test]
async fn a_long_request_to_one_model_does_not_hold_up_the_exchange_of_another() {
    let models = [
        model("a", &tiny_bge_m3(), ""),
        model("b", &tiny_bge_m3(), ""),
    ];
    let text = config(&models) + "[cache]\nmax_size = \"0B\"\n";
    let gateway = Gateway::start(&text);
    let texts: Vec<String> = (0..2000)
        .map(|i| format!("{i} {}", "words and words ".repeat(200)))
        .collect();
    let body = json!({"model": "a", "input": texts}).to_string();
    let request = client().post(format!("{}/v1/embeddings", gateway.url));
    let long = tokio::spawn(request.bearer_auth(ADMIN).body(body).send());
    let is_queue = |name: &str| name.starts_with("embedgate_queue_inputs{model=\"a\"");
    while !gateway
        .metrics()
        .await
        .iter()
        .any(|(name, n)| is_queue(name) && *n > 0.0)
    {}
    for limit in [16, 32] {
        let second = model("b", &tiny_bge_m3(), &format!("max_length = {limit}"));
        let changed = [models[0].clone(), second];
        write(
            &gateway,
            &(config(&changed) + "[cache]\nmax_size = \"0B\"\n"),
        );
        let answer = reload(&gateway).await;
        assert_eq!(
            statuses(&answer),
            pairs(&[("a", "kept"), ("b", "exchanged")])
        );
    }
    assert!(!long.is_finished(), "it is no long request");
    assert!(!gateway.log().contains("still answers requests"));
    long.abort();
}

#[tokio::test]
async fn a_model_that_nobody_uses_leaves_the_memory() {
    let idle = "load = \"on_demand\"\nidle = \"1s\"";
    let gateway = Gateway::start(&config(&[model("a", &tiny_bge_m3(), idle)]));
    let first = embed(&gateway, "a", &json!("text")).await.vectors();
    gateway.wait_for_log("model a leaves the memory: nobody used it for 1s");
    assert_eq!(ready(&gateway).await, ["on_demand"]);
    assert_eq!(embed(&gateway, "a", &json!("text")).await.vectors(), first);
}

#[tokio::test]
async fn caches_keep_what_still_holds() {
    let models = config(&[model("a", &tiny_bge_m3(), "")]);
    let gateway = Gateway::start(&models);
    let first = embed(&gateway, "a", &json!("text")).await.vectors();
    write(
        &gateway,
        &(models + "[cache]\nmax_size = \"16MiB\"\nmax_text_size = \"0B\"\n"),
    );
    let answer = reload(&gateway).await;
    assert_eq!(
        (answer.status, &answer.body["needs_restart"]),
        (200, &json!([]))
    );
    assert_eq!(embed(&gateway, "a", &json!("text")).await.vectors(), first);
    let metrics = gateway.metrics().await;
    let hits = metrics["embedgate_inputs_total{model=\"a\",result=\"hit\"}"];
    assert!((hits - 1.0).abs() < f64::EPSILON, "{hits}");
}

/// Under load no request fails and none is answered by two models, whatever is reloaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_are_not_noticed() {
    const RELOADS: usize = 30;
    let long = texts().join(" ");
    // Each is computed: equal ones would be computed once.
    let input: Vec<String> = (0..4).map(|i| format!("{i} {long}")).collect();
    let input = json!(input);
    // The cache would answer most of it.
    let cache = "[cache]\nmax_size = \"0B\"\n";
    let cut = |n: usize| {
        let limit = format!("max_length = {n}");
        config(&[model("a", &tiny_bge_m3(), &limit)]) + cache
    };
    let gateway = Gateway::start(&cut(16));
    let short = embed(&gateway, "a", &input).await.vectors();
    write(&gateway, &cut(32));
    assert_eq!(reload(&gateway).await.status, 200);
    let longer = embed(&gateway, "a", &input).await.vectors();
    assert!(max_difference(&short[0], &longer[0]) > 1e-3);
    let resident = gateway.resident_kib();
    let done = AtomicBool::new(false);
    let asking = async {
        let mut n = [0, 0];
        while !done.load(Ordering::Relaxed) {
            let answer = embed(&gateway, "a", &input).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let vectors = answer.vectors();
            let which = usize::from(max_difference(&vectors[0], &longer[0]) < 1e-5);
            for (vector, expected) in vectors.iter().zip([&short, &longer][which]) {
                assert!(
                    max_difference(vector, expected) < 1e-5,
                    "two models in one answer"
                );
            }
            n[which] += 1;
        }
        n
    };
    let reloading = async {
        for i in 0..RELOADS {
            let (text, status) = match i % 3 {
                0 => (cut(16), 200),
                1 => (cut(32), 200),
                // Longer than the model can be: one that cannot be loaded, or what is no configuration.
                _ if i % 2 == 0 => (cut(9999), 422),
                _ => ("nonsense".into(), 422),
            };
            write(&gateway, &text);
            let answer = reload(&gateway).await;
            assert_eq!(answer.status, status, "{i}: {}", answer.body);
        }
        done.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = tokio::join!(asking, reloading);
    assert!(answers.iter().all(|n| *n > 0), "{answers:?}");
    // Each of the 20 that were loaded meanwhile takes 3 MB, and its tokenizer as much again.
    let grown = gateway.resident_kib().saturating_sub(resident);
    assert!(grown < 50 << 10, "{grown} KiB");
}
