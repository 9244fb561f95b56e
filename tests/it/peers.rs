//! Routes of servers whose other routes are not spoken: vLLM's scores and tokens, NVIDIA's rankings, Coze Studio, llama.cpp.

use embedgate_test_support::{Gateway, embedder_and_reranker, numbers, tiny_config};
use serde_json::{Value, json};

fn score_of<'a>(lines: &'a Value, index: usize, name: &str) -> &'a Value {
    let lines = lines.as_array().unwrap();
    let line = lines.iter().find(|line| line["index"] == index).unwrap();
    &line[name]
}

#[tokio::test]
async fn vllm_scores_in_the_order_of_the_texts_and_nvidia_ranks() {
    let gateway = Gateway::start(&embedder_and_reranker());
    let documents = json!(["b", "c d", "a"]);
    let rerank = json!({"model": "reranker", "query": "a", "documents": documents});
    let expected = gateway.ok("/v1/rerank", &rerank).await;
    for body in [
        json!({"model": "reranker", "text_1": "a", "text_2": documents}),
        json!({"model": "reranker", "text_1": {"text": "a"}, "text_2": documents}),
        json!({"model": "reranker", "queries": "a", "documents": documents}),
    ] {
        for path in ["/score", "/v1/score"] {
            let answer = gateway.ok(path, &body).await;
            assert_eq!(answer["usage"], expected["usage"]);
            for index in 0..3 {
                let line = &answer["data"][index];
                assert_eq!(
                    (&line["index"], &line["object"]),
                    (&json!(index), &json!("score"))
                );
                let same = score_of(&expected["results"], index, "relevance_score");
                assert_eq!(&line["score"], same);
            }
        }
    }
    let mut raw = rerank.clone();
    raw["raw_scores"] = json!(true);
    let raw = gateway.ok("/v1/rerank", &raw).await;
    let passages = json!([{"text": "b"}, {"text": "c d"}, {"text": "a"}]);
    let body = json!({"model": "reranker", "query": {"text": "a"}, "passages": passages, "truncate": "END"});
    let ranked = gateway.ok("/v1/ranking", &body).await;
    for place in 0..3 {
        let (line, same) = (&ranked["rankings"][place], &raw["results"][place]);
        assert_eq!(
            (&line["index"], &line["logit"]),
            (&same["index"], &same["relevance_score"])
        );
    }
    let several = json!({"model": "reranker", "text_1": ["a", "b"], "text_2": documents});
    let refused = gateway.ask("/score", &several).await;
    assert_eq!(
        (refused.status, &refused.body["error"]["param"]),
        (400, &json!("text_1"))
    );
}

#[tokio::test]
async fn a_prompt_is_tokenized_as_vllm_does() {
    let gateway = Gateway::start(&tiny_config(""));
    let teis = gateway
        .ok("/tokenize", &json!({"inputs": "hello world"}))
        .await;
    let ids: Vec<&Value> = teis[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| &token["id"])
        .collect();
    let body = json!({"model": "tiny", "prompt": "hello world", "return_token_strs": true});
    let answer = gateway.ok("/tokenize", &body).await;
    assert_eq!(answer["tokens"], json!(ids));
    assert_eq!(answer["count"], ids.len());
    assert_eq!(answer["token_strs"].as_array().unwrap().len(), ids.len());
    assert!(answer["max_model_len"].is_u64());
    let refused = gateway.ask("/tokenize", &json!({"prompt": 5})).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body["error"]["message"].is_string(),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn one_path_speaks_coze_studio_and_llama_cpp() {
    let gateway = Gateway::start(&tiny_config(""));
    let outputs = json!(["dense", "sparse"]);
    let body = json!({"input": ["a b", "c"], "outputs": outputs, "sparse_format": "milvus"});
    let expected = gateway.ok("/v1/embeddings", &body).await;
    let coze = gateway
        .ok(
            "/embedding",
            &json!({"texts": ["a b", "c"], "need_sparse": true}),
        )
        .await;
    let llama = gateway
        .ok("/embedding", &json!({"content": ["a b", "c"]}))
        .await;
    for i in 0..2 {
        let one = &expected["data"][i];
        assert_eq!(numbers(&coze["dense"][i]), numbers(&one["embedding"]));
        assert_eq!(coze["sparse"][i], one["sparse_embedding"]);
        assert_eq!(llama[i]["index"], i);
        assert_eq!(
            numbers(&llama[i]["embedding"][0]),
            numbers(&one["embedding"])
        );
    }
    let dense = gateway
        .ok(
            "/embedding",
            &json!({"texts": ["a b"], "need_sparse": false}),
        )
        .await;
    assert_eq!(dense["sparse"], json!([]));
    let status = gateway.get("/support_status").await;
    assert_eq!((status.status, status.body), (200, json!(3)));
    let refused = gateway
        .ask("/embedding", &json!({"content": "a", "embd_normalize": -1}))
        .await;
    assert_eq!(
        (refused.status, &refused.body["error"]["param"]),
        (400, &json!("embd_normalize"))
    );
}

#[tokio::test]
async fn vllm_pools_where_a_vector_a_text_is_asked_for() {
    let gateway = Gateway::start(&tiny_config(""));
    let texts = json!(["a b c", "d"]);
    let body = json!({"model": "tiny", "input": texts, "task": "embed"});
    let pooled = gateway.ok("/pooling", &body).await;
    let expected = gateway.vectors("tiny", &texts).await;
    for (i, vector) in expected.iter().enumerate() {
        let item = &pooled["data"][i];
        assert_eq!(
            (&item["object"], &item["index"]),
            (&json!("pooling"), &json!(i))
        );
        assert_eq!(&numbers(&item["data"]), vector);
    }
    assert_eq!(
        pooled["usage"]["prompt_tokens"],
        pooled["usage"]["total_tokens"]
    );
    assert!(pooled["id"].as_str().unwrap().starts_with("pool-"));
    let cut = json!({"model": "tiny", "input": "a b c d e f", "task": "embed", "truncate_prompt_tokens": 3});
    assert_eq!(
        gateway.ok("/pooling", &cut).await["usage"]["prompt_tokens"],
        3
    );
    for task in [json!(null), json!("token_embed"), json!("encode"), json!(7)] {
        let body = json!({"model": "tiny", "input": "a", "task": task});
        let refused = gateway.ask("/pooling", &body).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["param"]),
            (400, &json!("task")),
            "{task}"
        );
        assert!(
            refused.message().contains("\"embed\""),
            "{}",
            refused.message()
        );
    }
}
