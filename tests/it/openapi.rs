//! The `OpenAPI` document and the page that shows it.

use embedgate_test_support::{Gateway, config_with_auth, embedder_and_reranker, tiny_config};

#[tokio::test]
async fn the_document_is_3_1_and_its_page_has_all_its_parts() {
    let gateway = Gateway::start(&embedder_and_reranker());
    let document = gateway.get("/openapi.json").await;
    assert_eq!(
        (document.status, &document.body["openapi"]),
        (200, &"3.1.0".into())
    );
    let page = reqwest::get(format!("{}/docs/", gateway.url))
        .await
        .unwrap();
    assert_eq!(page.url().path(), "/docs/index.html");
    let page = page.text().await.unwrap();
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|word| word.ends_with(".js") || word.ends_with(".css"))
        .collect();
    assert!(parts.len() >= 3, "{page}");
    for part in parts {
        let part = part.trim_start_matches("./");
        let answer = reqwest::get(format!("{}/docs/{part}", gateway.url))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{part}");
    }
    assert_eq!(gateway.get("/docs/nothing.js").await.status, 404);
}

#[tokio::test]
async fn every_example_of_the_document_is_answered_and_keys_are_asked_for_only_where_there_are_some()
 {
    let gateway = Gateway::start(&tiny_config(""));
    let document = gateway.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().unwrap();
    let mut n = 0;
    for (path, methods) in paths {
        let Some(post) = methods.get("post") else {
            continue;
        };
        let example = &post["requestBody"]["content"]["application/json"]["example"];
        assert!(example.is_object(), "{path} has no example");
        let answer = gateway.ask(path, example).await;
        assert_eq!(answer.status, 200, "{path} {example}: {}", answer.body);
        n += 1;
    }
    assert!(n >= 15, "{n}");
    assert_eq!(document["tags"][0]["name"], "embeddings");
    assert!(!document.to_string().contains("api_key"));
    let with_keys = Gateway::start(&config_with_auth("keys = [\"a-long-key\"]"));
    let document = with_keys.get("/openapi.json").await.body;
    assert!(document["paths"]["/v1/embeddings"]["post"]["security"].is_array());
    assert!(document["paths"]["/livez"]["get"]["security"].is_null());
}
