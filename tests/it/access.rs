//! Who may call: keys, open routes, browsers.

use embedgate_test_support::{
    Gateway, client, config_with_auth, embedgate, run, tiny_config, word_after,
};
use serde_json::{Value, json};

#[tokio::test]
async fn keys_let_in_and_everything_else_is_refused_before_the_body_is_read() {
    let config = tiny_config("").replace(
        "mode = \"none\"",
        "keys = [\"${EMBEDGATE_KEY}\", \"second-key\"]",
    );
    let mut gateway = Gateway::start_loading(&config, &[("EMBEDGATE_KEY", "first-key-1")]);
    gateway.wait_until_ready();
    let client = embedgate_test_support::client();
    let ask = |authorization: Option<&'static str>| {
        let mut request = client.post(format!("{}/v1/embeddings", gateway.url));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(r#"{"input": "a"}"#).send()
    };
    for good in [
        "Bearer first-key-1",
        "bearer second-key",
        "second-key",
        // As RAGFlow's provider for Ollama writes it.
        "Bear second-key",
    ] {
        assert_eq!(ask(Some(good)).await.unwrap().status(), 200, "{good}");
    }
    for bad in [
        None,
        Some(""),
        Some("Bearer "),
        Some("Bearer first-key-2"),
        Some("Basic first-key-1x"),
        Some("Bearer \u{e9}"),
    ] {
        let answer = ask(bad).await.unwrap();
        assert_eq!(answer.status(), 401, "{bad:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "invalid_api_key");
    }
    let wrong: Value = ask(Some("Bearer nobodys"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let message = wrong["error"]["message"].as_str().unwrap();
    assert!(message.contains("Incorrect API key provided"), "{message}");
    // Xinference's client sends its key only where this says so.
    let cluster = gateway.get("/v1/cluster/auth").await;
    assert_eq!((cluster.status, cluster.body), (200, json!({"auth": true})));
    assert_eq!(gateway.get("/v1/models").await.status, 401);
    assert_eq!(
        gateway.get("/readyz").await.status,
        200,
        "probes need no key"
    );
    assert!(
        !gateway.stop().contains("first-key"),
        "no key is ever logged"
    );
}

#[tokio::test]
async fn without_keys_any_authorization_is_accepted() {
    let gateway = Gateway::start(&tiny_config(""));
    for value in ["", "Bearer ", "Bearer empty", "lm-studio"] {
        let request = embedgate_test_support::client()
            .post(format!("{}/v1/embeddings", gateway.url))
            .header("authorization", value);
        assert_eq!(
            request
                .body(r#"{"input": "a"}"#)
                .send()
                .await
                .unwrap()
                .status(),
            200,
            "{value:?}"
        );
    }
}

#[tokio::test]
async fn browsers_may_call_only_where_the_config_says_so() {
    let preflight = |url: String| {
        let request = embedgate_test_support::client()
            .request(reqwest::Method::OPTIONS, format!("{url}/v1/embeddings"));
        request
            .header("origin", "https://a.example")
            .header("access-control-request-method", "POST")
            .send()
    };
    let closed = Gateway::start(&tiny_config(""));
    assert!(
        preflight(closed.url.clone())
            .await
            .unwrap()
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    let open = Gateway::start(&tiny_config(
        "[server]\ncors_origins = [\"https://a.example\"]",
    ));
    let answer = preflight(open.url.clone()).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["access-control-allow-origin"]
        ),
        (200, &"https://a.example".parse().unwrap())
    );
}

#[tokio::test]
async fn a_key_is_known_by_its_hash_and_brings_its_models_its_limit_and_its_end() {
    let new = || {
        let (code, key, line) = run(embedgate().args(["key", "new"]));
        assert_eq!(code, Some(0));
        let hash = word_after(&line, "hash = ").to_owned();
        (key.trim().to_owned(), hash)
    };
    let [good, narrow, limited, expired] = [(); 4].map(|()| new());
    let gateway = Gateway::start(&config_with_auth(&format!(
        "keys = [{{ hash = {} }}, {{ hash = {}, models = [\"other\"] }}, {{ hash = {}, limit = \"one\" }}, {{ hash = {}, expires = 2020-01-01 }}]\n\
         [auth.limits.one]\nrequests_per_minute = 1",
        good.1, narrow.1, limited.1, expired.1
    )));
    assert_eq!(gateway.ask_with_key(Some(&good.0)).await.0, 200);
    let code = |answer: (u16, Value)| {
        (
            answer.0,
            answer.1["error"]["code"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        code(gateway.ask_with_key(None).await),
        (401, "invalid_api_key".into())
    );
    let wrong = format!("{}x", good.0);
    assert_eq!(
        code(gateway.ask_with_key(Some(&wrong)).await),
        (401, "invalid_api_key".into())
    );
    assert_eq!(
        code(gateway.ask_with_key(Some(&expired.0)).await),
        (401, "api_key_expired".into())
    );
    assert_eq!(
        code(gateway.ask_with_key(Some(&narrow.0)).await),
        (403, "model_not_allowed".into())
    );
    assert_eq!(gateway.ask_with_key(Some(&limited.0)).await.0, 200);
    assert_eq!(
        code(gateway.ask_with_key(Some(&limited.0)).await),
        (429, "rate_limit_exceeded".into())
    );
    let list = client()
        .get(format!("{}/v1/models", gateway.url))
        .bearer_auth(&narrow.0);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"], json!([]));
    let one = client()
        .get(format!("{}/v1/models/tiny", gateway.url))
        .bearer_auth(&narrow.0);
    assert_eq!(one.send().await.unwrap().status(), 404);
    assert!(!gateway.stop().contains(&good.0));
}

#[tokio::test]
async fn open_routes_need_no_key_and_the_others_do() {
    let gateway = Gateway::start(&config_with_auth(
        "keys = [\"a-long-key\"]\nopen_routes = [\"embeddings\"]",
    ));
    assert_eq!(gateway.ask_with_key(None).await.0, 200);
    assert_eq!(gateway.ask_with_key(Some("whatever")).await.0, 200);
    let models = client()
        .get(format!("{}/v1/models", gateway.url))
        .send()
        .await
        .unwrap();
    assert_eq!(models.status(), 401);
}

#[tokio::test]
async fn a_narrow_key_learns_of_no_other_model_and_pays_nothing_for_a_refusal() {
    let other = embedgate_test_support::tiny_bge_m3();
    let auth = "keys = [{ key = \"a-narrow-key\", models = [\"other\"], limit = \"few\" }]\n\
        limits.few.requests_per_minute = 2";
    let more = format!(
        "[models.other]\npath = {other:?}\n[models.broken]\npath = {other:?}\nbackend = {{ type = \"onnx\", file = \"/no/such.onnx\" }}"
    );
    let gateway = Gateway::start(&(config_with_auth(auth) + &more));
    let ask = async |model: &str| {
        let request = client().post(format!("{}/v1/embeddings", gateway.url));
        let request = request.bearer_auth("a-narrow-key");
        let request = request.json(&json!({"model": model, "input": "a"}));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for (model, status) in [("tiny", 403), ("broken", 403), ("nobody", 404)] {
        let (found, body) = ask(model).await;
        assert_eq!(found, status, "{model}: {body}");
        assert!(!body.contains("/no/such"), "{body}");
        let named = ["tiny", "broken"].iter().filter(|name| **name != model);
        for name in named {
            assert!(!body.contains(name), "{model}: {body}");
        }
    }
    assert_eq!(ask("other").await.0, 200);
    assert_eq!(
        ask("other").await.0,
        429,
        "the unknown name counted, the two refusals did not"
    );
}

#[tokio::test]
async fn names_can_be_hidden_from_who_has_no_key() {
    let config = config_with_auth("keys = [\"a-long-key\"]");
    let gateway = Gateway::start(&format!("[server]\npublic_names = false\n{config}"));
    for (path, status) in [("/", 200), ("/readyz", 200), ("/metrics", 401)] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        let said = answer.body.to_string();
        assert!(!said.contains("tiny"), "{path}: {said}");
    }
    let metrics = client().get(format!("{}/metrics", gateway.url));
    let metrics = metrics.bearer_auth("a-long-key").send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("model=\"tiny\""));
}

#[tokio::test]
async fn the_log_and_the_metrics_say_who_asked_and_what_was_cut() {
    let auth = "keys = [{ key = \"the-key-of-ann\", name = \"ann\" }]";
    let gateway = Gateway::start(&(config_with_auth(auth) + "max_length = 8\n"));
    let ask = async |key: &str| {
        let request = client().post(format!("{}/v1/embeddings", gateway.url));
        let body = json!({"input": ["a", "one two three four five six seven eight nine"]});
        request
            .bearer_auth(key)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(ask("the-key-of-ann").await, 200);
    assert_eq!(ask("nobodys").await, 401);
    gateway.logged("\"caller\":\"ann\"", 1).await;
    gateway.logged("\"n_truncated\":1", 1).await;
    gateway.logged("\"caller\":\"\"", 1).await;
    assert!(
        gateway.log().contains("1 cut, model tiny by ann"),
        "{}",
        gateway.log()
    );
    let request = client().get(format!("{}/metrics", gateway.url)).send();
    let metrics = request.await.unwrap().text().await.unwrap();
    for line in [
        "embedgate_caller_requests_total{caller=\"ann\"} 1",
        "embedgate_truncated_inputs_total 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
