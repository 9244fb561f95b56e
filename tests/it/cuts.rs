//! Texts that are longer than a model takes.

use embedgate_test_support::{Gateway, SAME, ids, max_difference, numbers, tiny_config};
use serde_json::{Value, json};

#[tokio::test]
async fn over_long_texts_are_cut_and_the_header_says_so_on_hits_too() {
    let gateway = Gateway::start(&tiny_config("max_length = 32"));
    let long = "all work and no play ".repeat(50);
    let body = json!({"model": "tiny", "input": ["short", long, "short", long]});
    let first = gateway.embed(&body).await;
    let header = first.header("x-truncated").unwrap().to_owned();
    let parts: Vec<&str> = header.split(',').collect();
    assert_eq!(parts.len(), 2, "{header}");
    assert!(
        parts[0].starts_with("1:") && parts[1].starts_with("3:") && header.ends_with(">32"),
        "{header}"
    );
    assert_eq!(
        gateway.embed(&body).await.header("x-truncated"),
        Some(header.as_str())
    );
    let refused = gateway
        .embed(&json!({"model": "tiny", "input": long, "truncate": false}))
        .await;
    assert_eq!(refused.status, 400);
    // What is refused must not be answered from what was cut before, nor the other way round.
    let usage = gateway
        .embed(&json!({"model": "tiny", "input": long}))
        .await;
    assert_eq!(usage.body["usage"]["prompt_tokens"], 32);
}

#[tokio::test]
async fn long_texts_are_cut_on_the_side_that_the_request_says() {
    let gateway = Gateway::start(&tiny_config("max_length = 16"));
    let long = "one two three four five six seven eight nine ten";
    let cut = async |more: Value| {
        let mut body = json!({"inputs": long});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = gateway.ask("/embed", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(
            answer.header("x-truncated").unwrap().starts_with("0:"),
            "{:?}",
            answer.headers
        );
        numbers(&answer.body[0])
    };
    let tokens = gateway.ok("/tokenize", &json!({"inputs": long})).await;
    let all: Vec<usize> = tokens[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| ids(&json!([token["id"]]))[0])
        .collect();
    let (n, begin, end) = (all.len(), all[0], all[all.len() - 1]);
    assert!(n > 16);
    let right = [&all[..15], &[end]].concat();
    let left = [&[begin], &all[n - 15..]].concat();
    let expected = gateway
        .ok("/embed", &json!({"inputs": [right, left]}))
        .await;
    let right = cut(json!({})).await;
    assert!(max_difference(&right, &numbers(&expected[0])) < SAME);
    let left = cut(json!({"truncation_direction": "Left"})).await;
    assert!(max_difference(&left, &numbers(&expected[1])) < SAME);
    assert!(max_difference(&left, &right) > 0.01, "the two ends differ");
    let start = json!({"texts": [long], "input_type": "search_document", "truncate": "START"});
    let start = gateway.ok("/v2/embed", &start).await;
    assert!(max_difference(&numbers(&start["embeddings"]["float"][0]), &left) < SAME);

    let refused = gateway
        .ask("/embed", &json!({"inputs": long, "truncate": false}))
        .await;
    assert_eq!(
        (refused.status, refused.body["error_type"].as_str()),
        (422, Some("Validation"))
    );
    assert!(
        refused.body["error"]
            .as_str()
            .unwrap()
            .contains("at most 16"),
        "{}",
        refused.body
    );
    let refused = gateway
        .ask("/v2/embed", &json!({"texts": [long], "truncate": "NONE"}))
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .contains("at most 16"),
        "{}",
        refused.body
    );
}
