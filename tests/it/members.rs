//! Members of bodies that other servers document.

use embedgate_test_support::{Gateway, embedder_and_reranker, numbers, tiny_config};
use serde_json::{Value, json};

/// A body with more members.
fn with(mut body: Value, more: &Value) -> Value {
    let members = body.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_member_that_would_change_the_answer_is_obeyed_or_refused_by_name() {
    let gateway = Gateway::start(&embedder_and_reranker());
    let texts = json!({"input": "one two three four five six"});
    let plain = gateway.ok("/v1/embeddings", &texts).await;
    for more in [
        json!({"output_dtype": "float", "embed_dtype": "float32", "endianness": "little"}),
        json!({"truncate_prompt_tokens": -1, "late_chunking": false, "add_special_tokens": true}),
        json!({"truncation": true, "modality": "text", "return_multivector": false}),
        json!({"drop_params": true, "whatever": {"a": [1]}}),
    ] {
        let same = gateway
            .ok("/v1/embeddings", &with(texts.clone(), &more))
            .await;
        assert_eq!(same["data"], plain["data"], "{more}");
    }
    let metrics = gateway.metrics().await;
    let ignored = metrics
        .iter()
        .find(|(name, _)| name.starts_with("embedgate_ignored_members"));
    assert_eq!(ignored.map(|(_, n)| *n), Some(2.0));
    let rerank = json!({"query": "a", "documents": ["b", "c"]});
    let cohere = json!({"texts": ["one two three four five six"], "input_type": "x", "embedding_types": ["float"]});
    for (path, body, more) in [
        ("/v1/embeddings", &texts, json!({"output_dtype": "int8"})),
        ("/v1/embeddings", &texts, json!({"endianness": "big"})),
        (
            "/v1/embeddings",
            &texts,
            json!({"add_special_tokens": false}),
        ),
        ("/v1/embeddings", &texts, json!({"return_sparse": true})),
        ("/v1/embeddings", &texts, json!({"late_chunking": true})),
        (
            "/v1/embeddings",
            &texts,
            json!({"truncation_side": "middle"}),
        ),
        ("/v1/rerank", &rerank, json!({"return_embeddings": true})),
        ("/v1/rerank", &rerank, json!({"rank_fields": ["title"]})),
        ("/v2/embed", &cohere, json!({"embedding_types": ["int8"]})),
    ] {
        let name = more.as_object().unwrap().keys().next().unwrap().clone();
        let answer = gateway.ask(path, &with(body.clone(), &more)).await;
        assert_eq!(answer.status, 400, "{path} {more}: {}", answer.body);
        let said = answer.body.to_string();
        assert!(said.contains(&name), "{path} {more}: {said}");
    }
    let unit = |answer: &Value| {
        let vector = numbers(&answer["data"][0]["embedding"]);
        vector.iter().map(|x| x * x).sum::<f32>().sqrt()
    };
    assert!((unit(&plain) - 1.0).abs() < 1e-5);
    let raw = json!({"normalize": false});
    let raw = gateway
        .ok("/v1/embeddings", &with(texts.clone(), &raw))
        .await;
    assert!((unit(&raw) - 1.0).abs() > 1e-3, "not of length 1");
}

#[tokio::test]
async fn inputs_are_cut_to_the_tokens_that_a_request_says() {
    let gateway = Gateway::start(&tiny_config(""));
    let text = "one two three four five six seven eight nine ten";
    let body = json!({"input": text});
    let whole = gateway.embed(&body).await;
    let n = whole.body["usage"]["prompt_tokens"].as_u64().unwrap();
    let vector = |answer: &Value| numbers(&answer["data"][0]["embedding"]);
    let mut vectors = vec![vector(&whole.body)];
    for more in [
        json!({"truncate_prompt_tokens": 8}),
        json!({"truncate_prompt_tokens": 8, "truncation_side": "left"}),
    ] {
        // From the model, and from the cache.
        for _ in 0..2 {
            let cut = gateway.embed(&with(body.clone(), &more)).await;
            assert_eq!(cut.status, 200, "{}", cut.body);
            assert_eq!(cut.body["usage"]["prompt_tokens"], 8);
            assert_eq!(cut.header("x-truncated").unwrap(), format!("0:{n}>8"));
            vectors.push(vector(&cut.body));
        }
    }
    assert_eq!(vectors[1], vectors[2]);
    assert_eq!(vectors[3], vectors[4]);
    assert!(vectors[0] != vectors[1] && vectors[1] != vectors[3] && vectors[0] != vectors[3]);
    let cohere = json!({"texts": [text], "input_type": "search_document", "embedding_types": ["float"], "max_tokens": 8});
    let answer = gateway.ok("/v2/embed", &cohere).await;
    assert_eq!(numbers(&answer["embeddings"]["float"][0]), vectors[1]);
}

#[tokio::test]
async fn rankings_are_written_as_voyage_does_where_its_members_come() {
    let gateway = Gateway::start(&embedder_and_reranker());
    let body = json!({"query": "a", "documents": ["b", "c", "d"], "model": "reranker"});
    let jina = gateway
        .ok("/v1/rerank", &with(body.clone(), &json!({"top_n": 2})))
        .await;
    let more = json!({"top_k": 2, "truncation": true, "return_documents": true});
    let voyage = gateway.ok("/v1/rerank", &with(body.clone(), &more)).await;
    assert_eq!(voyage["object"], "list");
    assert_eq!(
        voyage["usage"],
        json!({"total_tokens": jina["usage"]["total_tokens"]})
    );
    let data = voyage["data"].as_array().unwrap();
    assert_eq!(data.len(), 2);
    for (line, jinas) in data.iter().zip(jina["results"].as_array().unwrap()) {
        assert_eq!(line["index"], jinas["index"]);
        assert_eq!(line["relevance_score"], jinas["relevance_score"]);
        let at = usize::try_from(line["index"].as_u64().unwrap()).unwrap();
        assert_eq!(line["document"], body["documents"][at]);
    }
    // Its client leaves the rest null.
    let nulls = json!({"top_k": null, "truncation": true});
    let all = gateway.ok("/v1/rerank", &with(body, &nulls)).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
}
