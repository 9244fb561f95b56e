//! Prompts: which one is put in front of a text.

use embedgate_test_support::{Gateway, SAME, max_difference, numbers, tiny_config};
use serde_json::json;

#[tokio::test]
async fn prompts_are_put_in_front_by_name_and_by_kind() {
    let prompts = "prompts = { query = \"question: \", passage = \"text: \", other = \"o: \" }\ndefault_prompt = \"other\"";
    let gateway = Gateway::start(&tiny_config(prompts));
    let plain = Gateway::start(&tiny_config(""));
    let expected = plain
        .vectors("tiny", &json!(["o: a", "question: a", "text: a"]))
        .await;
    for (more, i) in [
        (json!({}), 0),
        (json!({"input_type": "query"}), 1),
        (json!({"task": "retrieval.query"}), 1),
        (json!({"input_type": "search_document"}), 2),
        (json!({"prompt_name": "passage", "input_type": "query"}), 2),
    ] {
        let mut body = json!({"model": "tiny", "input": ["a"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let got = gateway.embed(&body).await.vectors();
        assert!(max_difference(&got[0], &expected[i]) < SAME, "{body}");
    }
    let tei = gateway
        .ok("/embed", &json!({"inputs": "a", "prompt_name": "query"}))
        .await;
    assert!(max_difference(&numbers(&tei[0]), &expected[1]) < SAME);
    let cohere = json!({"model": "tiny", "texts": ["a"], "input_type": "search_query"});
    let cohere = gateway.ok("/v2/embed", &cohere).await;
    assert!(max_difference(&numbers(&cohere["embeddings"]["float"][0]), &expected[1]) < SAME);
}

#[tokio::test]
async fn a_prompt_goes_in_front_of_every_text() {
    let gateway = Gateway::start(&tiny_config(
        "default_prompt = \"query\"\nprompts = { query = \"query: \" }",
    ));
    let plain = Gateway::start(&tiny_config(""));
    let with_prompt = gateway.vectors("tiny", &json!("cats")).await;
    assert!(
        max_difference(
            &with_prompt[0],
            &plain.vectors("tiny", &json!("query: cats")).await[0]
        ) < SAME
    );
    assert!(
        max_difference(
            &with_prompt[0],
            &plain.vectors("tiny", &json!("cats")).await[0]
        ) > 1e-3
    );
}

#[tokio::test]
async fn a_config_can_turn_the_prompt_of_a_folder_off() {
    let gateway = Gateway::start(&tiny_config("default_prompt = \"\""));
    assert_eq!(gateway.vectors("tiny", &json!("cats")).await.len(), 1);
}
