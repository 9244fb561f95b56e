//! The `OpenAPI` document and the page that shows it.

use embedgate_test_support::{Gateway, embedder_and_reranker};

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
