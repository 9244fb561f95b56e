//! Reranking by a real model, in the dialects of Jina, Cohere and text-embeddings-inference.

use embedgate_test_support::{Gateway, cosine, ids, tiny_config};
use serde_json::json;

use crate::support::minilm;

#[tokio::test]
async fn reranking_is_spoken_as_jina_cohere_and_tei_do() {
    let config = format!(
        "rerank = {{ sparse = 0.0 }}\n[models.mini]\npath = {:?}",
        minilm()
    );
    let gateway = Gateway::start(&tiny_config(&config));
    let documents = ["a red car", "cooking rice", "an automobile"];
    let jina = json!({"model": "mini", "query": "car", "documents": documents, "top_n": 2, "return_documents": "true"});
    let jina = gateway.ok("/v1/rerank", &jina).await;
    assert_eq!(jina["model"], "mini");
    assert!(jina["usage"]["total_tokens"].as_u64().unwrap() >= 12);
    assert_eq!(
        jina["usage"]["total_tokens"],
        jina["meta"]["tokens"]["input_tokens"]
    );
    let lines = jina["results"].as_array().unwrap();
    let order: Vec<usize> = lines
        .iter()
        .map(|line| ids(&json!([line["index"]]))[0])
        .collect();
    assert_eq!(order, [2, 0], "the rice comes last, and two were asked for");
    assert_eq!(lines[0]["document"]["text"], "an automobile");
    let score = lines[0]["relevance_score"].as_f64().unwrap();
    let vectors = gateway
        .vectors("mini", &json!(["car", "an automobile"]))
        .await;
    assert!(
        (score - cosine(&vectors[0], &vectors[1])).abs() < 1e-5,
        "dense alone is its cosine"
    );

    let text = lines[1]["relevance_score"].to_string();
    assert!(text.len() <= 12, "a score has the digits of an f32: {text}");

    let objects = json!({"model": "mini", "query": "car", "top_n": null, "return_documents": false,
        "documents": [{"text": "a red car"}, {"text": "cooking rice"}]});
    let objects = gateway.ok("/rerank", &objects).await;
    assert_eq!(objects["results"].as_array().unwrap().len(), 2);
    assert!(objects["results"][0].get("document").is_none());

    let cohere = json!({"model": "mini", "query": "car", "documents": documents, "top_n": 9, "max_tokens_per_doc": 99});
    let cohere = gateway.ok("/v2/rerank", &cohere).await;
    assert_eq!(
        (
            &cohere["results"][1]["index"],
            cohere["results"].as_array().unwrap().len()
        ),
        (&json!(0), 3)
    );
    assert_eq!(cohere["meta"]["billed_units"]["search_units"], 1);

    let tei = json!({"model": "mini", "query": "car", "texts": documents, "return_text": true});
    let tei = gateway.ok("/rerank", &tei).await;
    assert_eq!(
        (&tei[0]["index"], &tei[0]["text"]),
        (&json!(2), &json!("an automobile"))
    );
    let all = tei
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["score"].as_f64().unwrap());
    assert!(
        all.clone().all(|score| (0.0..=1.0).contains(&score)) && all.is_sorted_by(|a, b| a >= b)
    );
}
