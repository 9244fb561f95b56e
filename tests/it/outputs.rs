//! What models give beside dense vectors, and the forms that it comes in.

use base64_simd::STANDARD;
use embedgate_test_support::{
    Gateway, LIKE, Reference, copy, cosine, ids, max_difference, numbers, texts, tiny_bge_m3,
    tiny_config,
};
use serde_json::{Value, json};

#[tokio::test]
async fn all_three_outputs_are_those_of_flag_embedding() {
    let gateway = Gateway::start(&tiny_config(""));
    let texts = texts();
    assert!(texts.len() >= 200);
    let body = json!({"input": texts, "outputs": ["colbert", "sparse", "dense"]});
    let answer = gateway.ok("/v1/embeddings", &body).await;
    let reference = Reference::open("tiny_bge_m3_reference.safetensors");
    let dense = reference.rows("dense", 64);
    let (colbert, colbert_ends) = (
        reference.rows("colbert", 64),
        reference.numbers("colbert_offsets"),
    );
    let (sparse_ids, weights, sparse_ends) = (
        reference.numbers("sparse_ids"),
        reference.floats("sparse_weights"),
        reference.numbers("sparse_offsets"),
    );
    for i in 0..texts.len() {
        let item = &answer["data"][i];
        assert!(max_difference(&numbers(&item["embedding"]), &dense[i]) < LIKE);
        // The file has token vectors of the first texts.
        if let [begin, end, ..] = colbert_ends[i.min(colbert_ends.len())..] {
            let rows = item["colbert_embedding"].as_array().unwrap();
            let expected = &colbert[begin..end];
            assert_eq!(rows.len(), expected.len(), "text {i}");
            for (row, expected) in rows.iter().zip(expected) {
                let row = numbers(row);
                assert!(cosine(&row, expected) >= 0.99999 && max_difference(&row, expected) < LIKE);
            }
        }
        let place = sparse_ends[i]..sparse_ends[i + 1];
        let sparse = &item["sparse_embedding"];
        assert_eq!(
            ids(&sparse["indices"]),
            sparse_ids[place.clone()],
            "text {i}"
        );
        assert!(max_difference(&numbers(&sparse["values"]), &weights[place]) < LIKE);
    }
}

#[tokio::test]
async fn outputs_come_in_the_forms_that_clients_take_them() {
    let gateway = Gateway::start(&tiny_config(""));
    let asked = |more: Value| {
        let mut body =
            json!({"input": "Paris is a city. A large one.", "outputs": ["sparse", "colbert"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let item = async |more| {
        let body = gateway.ok("/v1/embeddings", &asked(more)).await;
        assert!(
            body["data"][0]["embedding"].is_null(),
            "dense was not asked for"
        );
        body["data"][0].clone()
    };
    let plain = item(json!({"sparse_tokens": true})).await;
    let sparse = &plain["sparse_embedding"];
    let (indices, values) = (ids(&sparse["indices"]), numbers(&sparse["values"]));
    assert!(indices.len() > 3 && indices.is_sorted(), "{sparse}");
    let tokens: Vec<String> = serde_json::from_value(sparse["tokens"].clone()).unwrap();
    assert!(tokens.iter().any(|token| token.contains('▁')), "{tokens:?}");
    assert_eq!(tokens.len(), indices.len());

    let milvus = item(json!({"sparse_format": "milvus"})).await;
    let by_id = milvus["sparse_embedding"].as_object().unwrap();
    assert_eq!(by_id.len(), indices.len());
    for (id, value) in indices.iter().zip(&values) {
        assert_eq!(numbers(&json!([by_id[&id.to_string()]])), [*value]);
    }
    let elastic = item(json!({"sparse_format": "elasticsearch"})).await;
    let by_token = elastic["sparse_embedding"].as_object().unwrap();
    for (token, value) in tokens.iter().zip(&values) {
        assert_eq!(
            numbers(&json!([by_token[&token.replace('.', "__")]])),
            [*value]
        );
    }
    assert!(by_token.keys().all(|token| !token.contains('.')));

    let rows: Vec<f32> = plain["colbert_embedding"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(numbers)
        .collect();
    let f32s = item(json!({"colbert_format": "base64"})).await["colbert_embedding"].clone();
    assert_eq!(
        (&f32s["shape"], &f32s["dtype"]),
        (&json!([rows.len() / 64, 64]), &json!("float32"))
    );
    let bytes = STANDARD
        .decode_to_vec(f32s["data"].as_str().unwrap())
        .unwrap();
    let decoded: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    assert_eq!(decoded, rows);
    let as_dense = item(json!({"encoding_format": "base64"})).await;
    assert_eq!(as_dense["colbert_embedding"], f32s);
    let f16s = item(json!({"colbert_format": "base64_f16"})).await["colbert_embedding"].clone();
    assert_eq!(f16s["dtype"], "float16");
    let bytes = STANDARD
        .decode_to_vec(f16s["data"].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes.len(), rows.len() * 2);
    let halves: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| half::f16::from_le_bytes(*b).to_f32())
        .collect();
    assert!(max_difference(&halves, &rows) < 1e-3);
}

#[tokio::test]
async fn what_a_model_does_not_give_and_what_nobody_knows_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny_bge_m3(), folder.path());
    for head in ["sparse_linear.pt", "colbert_linear.pt"] {
        std::fs::remove_file(folder.path().join(head)).unwrap();
    }
    let config = tiny_config(&format!("[models.mini]\npath = {:?}", folder.path()));
    let gateway = Gateway::start(&config);
    let cases = [
        (
            json!({"model": "mini", "outputs": ["dense", "sparse"]}),
            "outputs",
            "token vectors, not dense, sparse",
        ),
        (json!({"outputs": ["dens"]}), "outputs", "got \"dens\""),
        (json!({"outputs": []}), "outputs", "got []"),
        (json!({"outputs": "dense"}), "outputs", "a list of"),
        (
            json!({"sparse_format": "faiss"}),
            "sparse_format",
            "\"qdrant\" or \"milvus\"",
        ),
        (json!({"colbert_format": 5}), "colbert_format", "got 5"),
        (
            json!({"prompt_name": "nix"}),
            "prompt_name",
            "there is no prompt \"nix\"",
        ),
        (
            json!({"late_chunking": true}),
            "late_chunking",
            "not supported",
        ),
    ];
    for (more, param, message) in cases {
        let mut body = json!({"model": "tiny", "input": "a"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = gateway.embed(&body).await;
        assert_eq!(
            (answer.status, answer.body["error"]["param"].as_str()),
            (400, Some(param)),
            "{}",
            answer.body
        );
        assert!(answer.message().contains(message), "{}", answer.body);
    }
}
