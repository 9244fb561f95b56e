//! Azure's clients: the model in the path, the key in a header of its own; and names of models that nobody knows.

use embedgate_test_support::{
    Gateway, client, config_with_auth, embedder_and_reranker, tiny_config,
};
use serde_json::{Value, json};

#[tokio::test]
async fn azures_clients_name_the_model_in_the_path_and_send_the_key_in_a_header_of_its_own() {
    let gateway = Gateway::start(&config_with_auth("keys = [\"the-key-of-azure\"]"));
    let path = "/openai/deployments/BAAI%2Ftiny/embeddings?api-version=2024-10-21";
    let body = json!({"input": "a", "model": "ignored"});
    let ask = async |header: &str, key: &str, path: &str| {
        let request = client().post(format!("{}{path}", gateway.url));
        let answer = request
            .header(header, key)
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (status, answer) = ask("api-key", "the-key-of-azure", path).await;
    assert_eq!(
        (status, &answer["model"]),
        (200, &json!("BAAI/tiny")),
        "{answer}"
    );
    assert_eq!(ask("x-api-key", "the-key-of-azure", path).await.0, 200);
    assert_eq!(ask("api-key", "another", path).await.0, 401);
    let (status, answer) = ask("api-key", "the-key-of-azure", "/openai/v1/embeddings").await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (404, &json!("model")),
        "{answer}"
    );
    let gone = path.replace("tiny", "gone");
    assert_eq!(ask("api-key", "the-key-of-azure", &gone).await.0, 404);
}

#[tokio::test]
async fn an_unknown_model_is_the_default_one_where_the_configuration_says_so() {
    let text = format!("unknown_model = \"default\"\n{}", embedder_and_reranker());
    let gateway = Gateway::start(&text);
    let vector = async |model: &str| {
        let body = json!({"input": "a", "model": model});
        let answer = gateway.ok("/v1/embeddings", &body).await;
        assert_eq!(
            answer["model"], model,
            "the answer names what was asked for"
        );
        answer["data"][0]["embedding"].clone()
    };
    let expected = vector("bge-m3-local").await;
    assert_eq!(vector("text-embeddings-inference").await, expected);
    let rerank = json!({"query": "a", "documents": ["b", "c"], "model": "rerank-of-somebody"});
    let by_name = json!({"query": "a", "documents": ["b", "c"], "model": "reranker"});
    let answer = gateway.ok("/v1/rerank", &rerank).await;
    assert_eq!(
        answer["results"],
        gateway.ok("/v1/rerank", &by_name).await["results"]
    );
    // A list shows what there is.
    assert_eq!(
        gateway
            .get("/v1/models/text-embeddings-inference")
            .await
            .status,
        404
    );
    let refusing = Gateway::start(&tiny_config(""));
    let body = json!({"input": "a", "model": "text-embeddings-inference"});
    assert_eq!(refusing.embed(&body).await.status, 404);
}

#[tokio::test]
async fn an_unknown_model_has_the_permissions_of_the_default_one() {
    let auth = "keys = [{ key = \"only-the-others\", models = [\"reranker\"] }]";
    let text = embedder_and_reranker().replace("mode = \"none\"", auth);
    let gateway = Gateway::start(&format!("unknown_model = \"default\"\n{text}"));
    let request = client().post(format!("{}/v1/embeddings", gateway.url));
    let request = request.bearer_auth("only-the-others");
    let body = json!({"input": "a", "model": "whatever"});
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
}
