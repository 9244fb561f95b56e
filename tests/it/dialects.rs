//! What else than dense vectors models give, and the dialects of other servers, against the real program.

use base64_simd::STANDARD;
use serde_json::{Value, json};

use crate::{
    reference::Reference,
    support::{
        Answer, Gateway, converted, cosine, embedgate, fixtures, max_difference, minilm, texts,
        tiny_config,
    },
};

/// Two f32 runs of one text in other company.
const SAME: f32 = 2e-6;
/// Against the reference library, which sums in another order.
const LIKE: f32 = 1e-4;

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}

fn ids(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}

async fn ask(gateway: &Gateway, path: &str, body: Value) -> Answer {
    gateway.post(path, body.to_string()).await
}

/// The answer's body, where it is 200.
async fn ok(gateway: &Gateway, path: &str, body: Value) -> Value {
    let answer = ask(gateway, path, body.clone()).await;
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
    answer.body
}

#[tokio::test]
async fn all_three_outputs_are_those_of_flag_embedding() {
    let gateway = Gateway::start(&tiny_config(""));
    let texts = texts();
    assert!(texts.len() >= 200);
    let body = json!({"input": texts, "outputs": ["colbert", "sparse", "dense"]});
    let answer = ok(&gateway, "/v1/embeddings", body).await;
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
        let body = ok(&gateway, "/v1/embeddings", asked(more)).await;
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
    let config = tiny_config(&format!("[models.mini]\npath = {:?}", minilm()));
    let gateway = Gateway::start(&config);
    let cases = [
        (
            json!({"model": "mini", "outputs": ["dense", "sparse"]}),
            "outputs",
            "gives dense, token vectors, not dense, sparse",
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
    let tei = ok(
        &gateway,
        "/embed",
        json!({"inputs": "a", "prompt_name": "query"}),
    )
    .await;
    assert!(max_difference(&numbers(&tei[0]), &expected[1]) < SAME);
    let cohere = json!({"model": "tiny", "texts": ["a"], "input_type": "search_query"});
    let cohere = ok(&gateway, "/v2/embed", cohere).await;
    assert!(max_difference(&numbers(&cohere["embeddings"]["float"][0]), &expected[1]) < SAME);
}

#[tokio::test]
async fn jinas_additions_are_understood() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a", "b"])).await;
    let body = json!({"model": "tiny", "input": [{"text": "a"}, {"text": "b"}], "embedding_type": "float",
        "normalized": true, "task": "text-matching", "late_chunking": false});
    let got = gateway.embed(&body).await.vectors();
    for (a, b) in got.iter().zip(&expected) {
        assert!(max_difference(a, b) < SAME);
    }
    let raw = gateway
        .embed(&json!({"model": "tiny", "input": "a", "normalized": false}))
        .await
        .vectors();
    let length = raw[0].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.01 && cosine(&raw[0], &expected[0]) > 0.999_999);
    let cut = gateway
        .embed(&json!({"model": "tiny", "input": "a", "normalized": false, "dimensions": 5}))
        .await
        .vectors();
    assert!(max_difference(&cut[0], &raw[0][..5]) < SAME);
    let body = |form: &str| json!({"model": "tiny", "input": "a", "embedding_type": form});
    let bytes = async |form: &str| -> Vec<i16> {
        let answer = gateway.embed(&body(form)).await;
        serde_json::from_value(answer.body["data"][0]["embedding"].clone()).unwrap()
    };
    let (signed, unsigned) = (bytes("binary").await, bytes("ubinary").await);
    for (i, x) in expected[0].iter().enumerate() {
        assert_eq!(unsigned[i / 8] >> (7 - i % 8) & 1 == 1, *x > 0.0, "bit {i}");
        assert_eq!(signed[i / 8], unsigned[i / 8] - 128);
    }
    assert_eq!(signed.len(), expected[0].len() / 8);
    // OpenAI's clients always name an encoding.
    let mut named = body("binary");
    named["encoding_format"] = json!("base64");
    let named = gateway.embed(&named).await.body["data"][0]["embedding"].clone();
    assert_eq!(serde_json::from_value::<Vec<i16>>(named).unwrap(), signed);
    let image = gateway
        .embed(&json!({"model": "tiny", "input": [{"image": "x"}]}))
        .await;
    assert_eq!(image.status, 400);
    assert!(
        image.message().contains("input[0]") && image.message().contains("\"image\""),
        "{}",
        image.body
    );
}

#[tokio::test]
async fn text_embeddings_inference_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway
        .vectors("tiny", &json!(["hello world", "好 world"]))
        .await;
    for path in ["/embed", "/"] {
        let answer = ask(
            &gateway,
            path,
            json!({"inputs": ["hello world", "好 world"]}),
        )
        .await;
        assert_eq!(answer.header("x-compute-characters"), Some("18"));
        assert_eq!(answer.header("x-compute-type"), Some("cpu"));
        for step in ["tokenization", "queue", "inference"] {
            let time = answer.header(&format!("x-{step}-time")).unwrap();
            assert!(time.parse::<u64>().is_ok(), "{step}: {time}");
        }
        let n_tokens: usize = answer.header("x-compute-tokens").unwrap().parse().unwrap();
        assert!(n_tokens > 8);
        for (i, expected) in expected.iter().enumerate() {
            assert!(max_difference(&numbers(&answer.body[i]), expected) < SAME);
        }
    }
    let tokens = ok(&gateway, "/tokenize", json!({"inputs": "好 world"})).await;
    let native: Vec<&Value> = tokens[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| &token["id"])
        .collect();
    let mixed = ok(
        &gateway,
        "/embed",
        json!({"inputs": ["hello world", native]}),
    )
    .await;
    for (i, expected) in expected.iter().enumerate() {
        assert!(max_difference(&numbers(&mixed[i]), expected) < SAME);
    }
    let health = gateway.get("/health").await;
    assert_eq!((health.status, health.body), (200, json!("")));
    let one = ok(&gateway, "/embed", json!({"inputs": "hello world"})).await;
    assert_eq!(
        one.as_array().unwrap().len(),
        1,
        "one input still gives a list"
    );
    let cut = ok(
        &gateway,
        "/embed",
        json!({"inputs": "hello world", "dimensions": 8, "normalize": false}),
    )
    .await;
    assert_eq!(cut[0].as_array().unwrap().len(), 8);

    let tokens = ok(&gateway, "/tokenize", json!({"inputs": "hello wörld"})).await;
    let tokens = tokens[0].as_array().unwrap();
    assert_eq!(
        (&tokens[0]["special"], &tokens[0]["start"]),
        (&json!(true), &Value::Null)
    );
    let inner: Vec<&Value> = tokens
        .iter()
        .filter(|token| token["special"] == false)
        .collect();
    assert_eq!(
        inner.last().unwrap()["stop"],
        11,
        "places are in characters"
    );
    let all: Vec<usize> = tokens
        .iter()
        .map(|token| ids(&json!([token["id"]]))[0])
        .collect();
    let bare = ok(
        &gateway,
        "/tokenize",
        json!({"inputs": ["hello wörld"], "add_special_tokens": false}),
    )
    .await;
    assert_eq!(bare[0].as_array().unwrap().len(), inner.len());
    let text = ok(&gateway, "/decode", json!({"ids": all})).await;
    assert_eq!(text, json!(["hello wörld"]));
    let special = ok(
        &gateway,
        "/decode",
        json!({"ids": [all], "skip_special_tokens": false}),
    )
    .await;
    assert!(special[0].as_str().unwrap().starts_with("<s>"), "{special}");
    let native = ok(&gateway, "/embed", json!({"inputs": all})).await;
    let text = gateway.vectors("tiny", &json!("hello wörld")).await;
    assert!(
        max_difference(&numbers(&native[0]), &text[0]) < SAME,
        "ids are the model's own"
    );

    let sparse = ok(&gateway, "/embed_sparse", json!({"inputs": "hello world"})).await;
    let body = json!({"input": "hello world", "outputs": ["sparse"]});
    let like = ok(&gateway, "/v1/embeddings", body).await["data"][0]["sparse_embedding"].clone();
    let pairs = sparse[0].as_array().unwrap();
    let of = |name: &str| Value::from_iter(pairs.iter().map(|pair| pair[name].clone()));
    assert_eq!(
        (of("index"), of("value")),
        (like["indices"].clone(), like["values"].clone())
    );

    let inputs =
        json!({"source_sentence": "hello world", "sentences": ["好 world", "hello world"]});
    let scores = numbers(&ok(&gateway, "/similarity", json!({"inputs": inputs})).await);
    let like = cosine(&expected[0], &expected[1]);
    assert!(
        (f64::from(scores[0]) - like).abs() < 1e-5 && (scores[1] - 1.0).abs() < 1e-5,
        "{scores:?} {like}"
    );

    let info = gateway.get("/info").await.body;
    assert_eq!(
        (
            &info["model_id"],
            &info["model_type"]["embedding"]["pooling"]
        ),
        (&json!("tiny"), &json!("cls"))
    );
    assert_eq!(
        (&info["max_client_batch_size"], &info["auto_truncate"]),
        (&json!(2048), &json!(true))
    );
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
        let answer = ask(&gateway, "/embed", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(
            answer.header("x-truncated").unwrap().starts_with("0:"),
            "{:?}",
            answer.headers
        );
        numbers(&answer.body[0])
    };
    let tokens = ok(&gateway, "/tokenize", json!({"inputs": long})).await;
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
    let expected = ok(&gateway, "/embed", json!({"inputs": [right, left]})).await;
    let right = cut(json!({})).await;
    assert!(max_difference(&right, &numbers(&expected[0])) < SAME);
    let left = cut(json!({"truncation_direction": "Left"})).await;
    assert!(max_difference(&left, &numbers(&expected[1])) < SAME);
    assert!(max_difference(&left, &right) > 0.01, "the two ends differ");
    let start = json!({"texts": [long], "input_type": "search_document", "truncate": "START"});
    let start = ok(&gateway, "/v2/embed", start).await;
    assert!(max_difference(&numbers(&start["embeddings"]["float"][0]), &left) < SAME);

    let refused = ask(
        &gateway,
        "/embed",
        json!({"inputs": long, "truncate": false}),
    )
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
    let refused = ask(
        &gateway,
        "/v2/embed",
        json!({"texts": [long], "truncate": "NONE"}),
    )
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

#[tokio::test]
async fn ollama_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a", "b"])).await;
    let answer = ok(
        &gateway,
        "/api/embed",
        json!({"model": "tiny:latest", "input": ["a", "b"]}),
    )
    .await;
    assert_eq!(answer["model"], "tiny:latest", "as it was asked for");
    assert!(answer["prompt_eval_count"].as_u64().unwrap() >= 6);
    assert!(answer["total_duration"].as_u64().unwrap() > 0 && answer["load_duration"] == 0);
    for (i, expected) in expected.iter().enumerate() {
        assert!(max_difference(&numbers(&answer["embeddings"][i]), expected) < SAME);
    }
    let older = ok(
        &gateway,
        "/api/embeddings",
        json!({"model": "tiny", "prompt": "b"}),
    )
    .await;
    assert!(max_difference(&numbers(&older["embedding"]), &expected[1]) < SAME);
    let tags = gateway.get("/api/tags").await.body;
    assert_eq!(tags["models"][0]["name"], "tiny");
    let shown = ok(&gateway, "/api/show", json!({"model": "BAAI/tiny"})).await;
    assert_eq!(
        (
            &shown["capabilities"],
            &shown["model_info"]["bert.embedding_length"]
        ),
        (&json!(["embedding"]), &json!(64))
    );
    let missing = ask(
        &gateway,
        "/api/embed",
        json!({"model": "nix", "input": "a"}),
    )
    .await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.body["error"].as_str().unwrap().contains("nix"),
        "{}",
        missing.body
    );
}

#[tokio::test]
async fn cohere_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a"])).await.remove(0);
    let body = json!({"model": "tiny", "input_type": "classification", "texts": ["a"],
        "embedding_types": ["ubinary", "float", "binary", "base64"], "truncate": "END"});
    let answer = ok(&gateway, "/v2/embed", body).await;
    assert_eq!(answer["response_type"], "embeddings_by_type");
    assert_eq!(answer["meta"]["billed_units"]["input_tokens"], 3);
    let all = &answer["embeddings"];
    assert!(max_difference(&numbers(&all["float"][0]), &expected) < SAME);
    let bytes = STANDARD
        .decode_to_vec(all["base64"][0].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes.len(), 256);
    let bits: Vec<u8> = serde_json::from_value(all["ubinary"][0].clone()).unwrap();
    let signed: Vec<i8> = serde_json::from_value(all["binary"][0].clone()).unwrap();
    for (i, x) in expected.iter().enumerate() {
        let bit = bits[i / 8] >> (7 - i % 8) & 1;
        assert_eq!(bit == 1, *x > 0.0, "bit {i}");
        assert_eq!(i16::from(signed[i / 8]), i16::from(bits[i / 8]) - 128);
    }
    for (more, part) in [
        (
            json!({"embedding_types": ["int8"]}),
            "embedding_types must be",
        ),
        (json!({"images": ["data:"]}), "images is not supported"),
        (json!({"truncate": "MIDDLE"}), "\"NONE\" or \"START\""),
        (json!({"texts": []}), "texts must hold at least one"),
    ] {
        let mut body = json!({"model": "tiny", "texts": ["a"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = ask(&gateway, "/v2/embed", body).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.body["message"].as_str().unwrap().contains(part),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn a_model_that_gives_all_three_reranks_as_flag_embedding_does() {
    let file = std::fs::read_to_string(fixtures().join("tiny_rerank_reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&file).unwrap();
    let texts = texts();
    let (queries, documents) = (ids(&reference["queries"]), ids(&reference["documents"]));
    let given: Vec<&String> = documents.iter().map(|i| &texts[*i]).collect();
    for (name, weights) in [
        ("default", ""),
        (
            "uneven",
            "rerank = { dense = 0.4, sparse = 0.2, colbert = 0.4 }",
        ),
    ] {
        let gateway = Gateway::start(&tiny_config(weights));
        let scores = numbers(&reference["scores"][name]);
        assert_eq!(scores.len(), queries.len() * documents.len());
        for (i, expected) in queries.iter().zip(scores.chunks(documents.len())) {
            let body = json!({"query": texts[*i], "texts": given, "raw_scores": true});
            let answer = ok(&gateway, "/rerank", body).await;
            let lines = answer.as_array().unwrap();
            assert_eq!(lines.len(), documents.len());
            let mut last = f64::INFINITY;
            for line in lines {
                let (index, score) = (
                    ids(&json!([line["index"]]))[0],
                    line["score"].as_f64().unwrap(),
                );
                let far = (score - f64::from(expected[index])).abs();
                assert!(
                    far < 1e-4 * score.abs().max(1.0),
                    "{name} {i} {index}: {score} {far}"
                );
                assert!(score <= last, "best first");
                last = score;
            }
        }
    }
}

#[tokio::test]
async fn reranking_is_spoken_as_jina_cohere_and_tei_do() {
    let config = format!(
        "rerank = {{ sparse = 0.0 }}\n[models.mini]\npath = {:?}",
        minilm()
    );
    let gateway = Gateway::start(&tiny_config(&config));
    let documents = ["a red car", "cooking rice", "an automobile"];
    let jina = json!({"model": "mini", "query": "car", "documents": documents, "top_n": 2, "return_documents": "true"});
    let jina = ok(&gateway, "/v1/rerank", jina).await;
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
    let objects = ok(&gateway, "/rerank", objects).await;
    assert_eq!(objects["results"].as_array().unwrap().len(), 2);
    assert!(objects["results"][0].get("document").is_none());

    let cohere = json!({"model": "mini", "query": "car", "documents": documents, "top_n": 9, "max_tokens_per_doc": 99});
    let cohere = ok(&gateway, "/v2/rerank", cohere).await;
    assert_eq!(
        (
            &cohere["results"][1]["index"],
            cohere["results"].as_array().unwrap().len()
        ),
        (&json!(0), 3)
    );
    assert_eq!(cohere["meta"]["billed_units"]["search_units"], 1);

    let tei = json!({"model": "mini", "query": "car", "texts": documents, "return_text": true});
    let tei = ok(&gateway, "/rerank", tei).await;
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

    let cases = [
        (
            "/v1/rerank",
            json!({"query": "a"}),
            400,
            "/error/message",
            "documents is missing",
        ),
        (
            "/v1/rerank",
            json!({"documents": ["a"]}),
            400,
            "/error/message",
            "query is missing",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": [5]}),
            400,
            "/error/message",
            "a list of strings",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b", 5]}),
            400,
            "/error/message",
            "documents[1]: is a token id",
        ),
        (
            "/rerank",
            json!({"query": "a", "texts": vec!["b"; 2049]}),
            422,
            "/error",
            "texts must hold at most 2048 entries, got 2049",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["a"], "return_documents": "yes"}),
            400,
            "/error/message",
            "true or false",
        ),
        (
            "/v1/rerank",
            json!({"model": "nix", "query": "a", "documents": ["a"]}),
            404,
            "/error/message",
            "nix",
        ),
        (
            "/v2/rerank",
            json!({"query": "a", "documents": []}),
            400,
            "/message",
            "at least one",
        ),
        (
            "/rerank",
            json!({"query": "a", "texts": []}),
            400,
            "/error",
            "texts must hold at least one",
        ),
        (
            "/rerank",
            json!({"query": 5, "texts": ["a"]}),
            422,
            "/error",
            "query must be",
        ),
        (
            "/rerank",
            json!({"model": "tiny", "query": "a", "texts": ["b".to_owned(), "word ".repeat(9000)], "truncate": false}),
            422,
            "/error",
            "documents[1]",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b"], "long_documents": "chunks"}),
            400,
            "/error/message",
            "long_documents must be \"truncate\" or \"windows\", got \"chunks\"",
        ),
    ];
    for (path, body, status, at, part) in cases {
        let answer = ask(&gateway, path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(
            answer
                .body
                .pointer(at)
                .unwrap()
                .as_str()
                .unwrap()
                .contains(part),
            "{path}: {}",
            answer.body
        );
    }
}

/// `FlagEmbedding`'s scores of pairs that are longer than the models take.
#[derive(serde::Deserialize)]
struct CutPairs {
    /// Places of query and text.
    pairs: Vec<[usize; 2]>,
    scores: std::collections::HashMap<String, Vec<f64>>,
}

#[tokio::test]
async fn cross_encoders_score_pairs_as_transformers_and_flag_embedding_do() {
    let reference = Reference::open("tiny_rerankers_reference.safetensors");
    let (texts, pairs) = (texts(), reference.numbers("pairs"));
    let cut = std::fs::read_to_string(fixtures().join("tiny_cut_pairs_reference.json")).unwrap();
    let cut: CutPairs = serde_json::from_str(&cut).unwrap();
    for name in ["bert", "xlmr"] {
        let folder = fixtures().join(format!("tiny-{name}-reranker"));
        let gateway = Gateway::start(&format!(
            "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.ranker]\npath = {folder:?}\n"
        ));
        let model = gateway.get("/v1/models/ranker").await.body;
        assert_eq!(model["model_type"], "rerank");
        let scores = reference.floats(&format!("{name}.scores"));
        let lengths = reference.numbers(&format!("{name}.offsets"));
        let mut n = 0;
        for (i, pair) in pairs.chunks(2).enumerate() {
            // Of those that are too long, transformers cuts the longer text.
            if lengths[i + 1] - lengths[i] == 128 {
                continue;
            }
            let others = [&texts[pair[1]], "something else entirely", &texts[pair[0]]];
            let body = json!({"query": texts[pair[0]], "texts": others, "raw_scores": true});
            let answer = ok(&gateway, "/rerank", body).await;
            let line = |i: usize| {
                let lines = answer.as_array().unwrap().iter();
                lines.clone().find(|line| line["index"] == i).unwrap()["score"]
                    .as_f64()
                    .unwrap()
            };
            assert!(
                (line(0) - f64::from(scores[i])).abs() < 1e-4,
                "{name} {i}: {answer}"
            );
            n += 1;
        }
        assert!(n >= 20, "{n} pairs of {name} are not cut");
        for (pair, expected) in cut.pairs.iter().zip(&cut.scores[name]) {
            let body =
                json!({"query": texts[pair[0]], "texts": [texts[pair[1]]], "raw_scores": true});
            let answer = ok(&gateway, "/rerank", body).await;
            let score = answer[0]["score"].as_f64().unwrap();
            assert!(
                (score - expected).abs() < 1e-4,
                "{name} {pair:?}: {score} {expected}"
            );
        }

        let body = json!({"query": "a question", "documents": ["one", "two", "word ".repeat(500)]});
        let answer = ok(&gateway, "/v1/rerank", body).await;
        for line in answer["results"].as_array().unwrap() {
            let score = line["relevance_score"].as_f64().unwrap();
            assert!(score > 0.0 && score < 1.0, "{answer}");
        }
        let body = json!({"query": "a", "texts": ["b".to_owned(), "word ".repeat(500)], "truncate": false});
        let refused = ask(&gateway, "/rerank", body).await;
        assert_eq!(refused.status, 422);
        let message = refused.body["error"].as_str().unwrap();
        assert!(
            message.contains("documents[1]") && message.contains("at most 128"),
            "{message}"
        );
        let body = json!({"query": "word ".repeat(500), "documents": ["b"], "truncate": false});
        let refused = ask(&gateway, "/v1/rerank", body).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, &error["param"]), (400, &json!("query")));
        let message = error["message"].as_str().unwrap();
        let expected = "of which model \"ranker\" takes at most 96 beside a document";
        assert!(message.contains(expected), "{message}");
        for (path, body) in [
            ("/v1/embeddings", json!({"input": "a", "dimensions": 4})),
            ("/embed", json!({"inputs": "a"})),
        ] {
            let answer = ask(&gateway, path, body).await;
            assert!(
                answer.body.to_string().contains("gives score, not dense"),
                "{}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn long_documents_are_scored_in_windows_and_the_best_one_counts() {
    // Special tokens of a pair, or of a text alone, which has no query beside it.
    for (folder, n_special, has_query) in [
        ("tiny-bert-reranker", 3, true),
        ("tiny-xlmr-reranker", 4, true),
        ("tiny-bge-m3", 2, false),
    ] {
        let gateway = Gateway::start(&format!(
            "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.m]\npath = {:?}\nmax_length = 128\nqueue_capacity = 2048\n",
            fixtures().join(folder)
        ));
        let query = "where is the vector kept";
        let filler = "word and more ".repeat(60);
        let long = format!("{filler}the vector is kept in a cache {filler}");
        let scores = async |documents: &[&str], more: Value| {
            let mut body = json!({"query": query, "documents": documents, "raw_scores": true});
            let members = body.as_object_mut().unwrap();
            members.extend(more.as_object().unwrap().clone());
            let answer = ask(&gateway, "/v1/rerank", body).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let mut scores = vec![f64::NAN; documents.len()];
            for line in answer.body["results"].as_array().unwrap() {
                let index = usize::try_from(line["index"].as_u64().unwrap()).unwrap();
                scores[index] = line["relevance_score"].as_f64().unwrap();
            }
            (scores, answer.header("x-truncated").map(str::to_owned))
        };

        // The windows, made here from the tokens that the server shows.
        let body = json!({"inputs": [query, &long], "add_special_tokens": false});
        let tokens = ok(&gateway, "/tokenize", body).await;
        let n_query = if has_query {
            tokens[0].as_array().unwrap().len()
        } else {
            0
        };
        let window = 128 - n_special - n_query - 4;
        let tokens = tokens[1].as_array().unwrap();
        let at = |i: usize, side: &str| usize::try_from(tokens[i][side].as_u64().unwrap()).unwrap();
        let (step, mut starts) = (window - window / 4, vec![0]);
        while starts.last().unwrap() + window < tokens.len() {
            starts.push((starts.last().unwrap() + step).min(tokens.len() - window));
        }
        assert!(starts.len() >= 3, "{folder}: {starts:?}");
        let windows: Vec<&str> = starts
            .iter()
            .map(|start| &long[at(*start, "start")..at(start + window - 1, "stop")])
            .collect();
        let (each, header) = scores(&windows, json!({})).await;
        assert_eq!(header, None, "{folder}: each fits");
        let expected = each.iter().copied().fold(f64::MIN, f64::max);

        let documents = ["short", &*long, "another short one"];
        let (cut, header) = scores(&documents, json!({})).await;
        assert!(header.unwrap().starts_with("1:"), "{folder}");
        let (best, header) = scores(&documents, json!({"long_documents": "windows"})).await;
        assert_eq!(header, None, "{folder}: windows lose nothing");
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
        assert!(near(best[1], expected), "{folder}: {best:?} {each:?}");
        assert!(!near(best[1], cut[1]), "{folder}: {best:?} {cut:?}");
        assert!(near(cut[0], best[0]) && near(cut[2], best[2]), "{folder}");

        // Only the first tokens count: then both are the same text.
        let first = json!({"max_tokens_per_doc": 3});
        let (few, header) = scores(&[&filler, &long], first).await;
        let n_tokens = async |text: &str| {
            let body = json!({"inputs": text, "add_special_tokens": false});
            let tokens = ok(&gateway, "/tokenize", body).await;
            tokens[0].as_array().unwrap().len()
        };
        let (n_filler, n_long) = (n_tokens(&filler).await, tokens.len());
        assert_eq!(header, Some(format!("0:{n_filler}>3,1:{n_long}>3")));
        assert!(near(few[0], few[1]), "{folder}: {few:?}");

        // More windows than a request may have inputs.
        let many = "word ".repeat(2100 * step);
        let (_, header) = scores(
            &[&many[..many.len() / 4]],
            json!({"long_documents": "windows"}),
        )
        .await;
        assert_eq!(header, None);

        // A query that is cut is said, too.
        let body = json!({"query": "word ".repeat(500), "documents": ["one", "two"]});
        let answer = ask(&gateway, "/v1/rerank", body).await;
        let (from, to) = match has_query {
            true => (n_tokens(&"word ".repeat(500)).await, 96),
            false => (n_tokens(&"word ".repeat(500)).await + n_special, 128),
        };
        let said = format!("query:{from}>{to}");
        assert_eq!(
            answer.header("x-truncated"),
            Some(said.as_str()),
            "{folder}"
        );

        let endless = "word ".repeat(128 * 2048);
        let body = json!({"query": query, "documents": [endless], "long_documents": "windows"});
        let refused = ask(&gateway, "/v1/rerank", body).await;
        assert_eq!(refused.status, 400);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("windows, and model \"m\" takes at most 2048"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn errors_come_in_the_words_of_the_routes_dialect() {
    let config = tiny_config("").replace(
        "mode = \"none\"",
        "keys = [\"the-only-key-there-is\"]\nopen_routes = [\"tei\"]",
    );
    let gateway = Gateway::start(&config);
    for (path, member) in [
        ("/v1/embeddings", "/error/message"),
        ("/api/embed", "/error"),
        ("/v2/embed", "/message"),
    ] {
        let answer = ask(&gateway, path, json!({"input": "a", "texts": ["a"]})).await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Bearer")),
            "{path}"
        );
        assert!(
            answer.body.pointer(member).unwrap().is_string(),
            "{path}: {}",
            answer.body
        );
    }
    let cases = [
        ("/embed", json!({"inputs": []}), 400, "Empty", "inputs"),
        ("/embed", json!({"inputs": 5}), 422, "Validation", "inputs"),
        ("/embed", json!({}), 422, "Validation", "inputs is missing"),
        (
            "/embed",
            json!({"inputs": "a", "truncation_direction": "Up"}),
            422,
            "Validation",
            "\"Right\" or \"Left\"",
        ),
        (
            "/embed",
            json!({"inputs": "a", "model": "nix"}),
            404,
            "Validation",
            "nix",
        ),
        (
            "/embed",
            json!({"inputs": [1, 100_000_000]}),
            422,
            "Validation",
            "100000000",
        ),
        (
            "/tokenize",
            json!({"inputs": "a".repeat(2 << 20)}),
            413,
            "Validation",
            "at most 262144 bytes",
        ),
        (
            "/tokenize",
            json!({"inputs": [1, 2]}),
            422,
            "Validation",
            "tokens already",
        ),
        (
            "/decode",
            json!({"ids": "a"}),
            422,
            "Validation",
            "ids must be",
        ),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a"}}),
            422,
            "Validation",
            "sentences",
        ),
    ];
    for (path, body, status, kind, part) in cases {
        let answer = ask(&gateway, path, body).await;
        let said = (answer.status, answer.body["error_type"].as_str());
        assert_eq!(said, (status, Some(kind)), "{path}: {}", answer.body);
        assert!(
            answer.body["error"].as_str().unwrap().contains(part),
            "{path}: {}",
            answer.body
        );
    }
    let method = gateway.get("/embed").await;
    assert_eq!(
        (method.status, method.body["error_type"].as_str()),
        (405, Some("Validation"))
    );
}

#[tokio::test]
async fn a_cross_encoder_reranks_where_no_model_is_named_and_embeds_for_nobody() {
    let ranker = fixtures().join("tiny-bert-reranker");
    let config = tiny_config(&format!("[models.ranker]\npath = {ranker:?}"));
    let gateway = Gateway::start(&format!("default_model = \"tiny\"\n{config}"));
    let body = json!({"query": "a question", "documents": ["one", "two"]});
    let unnamed = ok(&gateway, "/v1/rerank", body.clone()).await;
    assert_eq!(unnamed["model"], "ranker");
    let mut named = body;
    named["model"] = json!("tiny");
    let named = ok(&gateway, "/v1/rerank", named).await;
    assert_ne!(
        named["results"][0]["relevance_score"],
        unnamed["results"][0]["relevance_score"]
    );
    let vectors = ok(&gateway, "/embed", json!({"inputs": "a"})).await;
    assert_eq!(vectors[0].as_array().unwrap().len(), 64);
    let nvidia = json!({"input": "a", "truncate": "END", "input_type": "query"});
    assert_eq!(gateway.embed(&nvidia).await.status, 200);
}

#[test]
fn the_doctor_says_what_ragflow_would_make_of_a_server() {
    let doctor = |gateway: &Gateway, more: &[&str]| {
        let output = embedgate()
            .args([
                "doctor",
                "ragflow",
                "--url",
                &gateway.url,
                "--model",
                "tiny",
            ])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<String> = text.lines().map(|line| line[..4].to_owned()).collect();
        (output.status.code(), words, text)
    };
    let open = Gateway::start(&tiny_config(""));
    let (code, words, text) = doctor(&open, &["--rerank-model", "tiny"]);
    assert_eq!(
        (code, words.join(" ").as_str()),
        (Some(0), ["ok  "; 11].join(" ").as_str()),
        "{text}"
    );
    assert_eq!(text.matches("64 dimensions").count(), 6, "{text}");

    let key = "the-only-key-there-is";
    let closed_config = tiny_config("").replace("mode = \"none\"", &format!("keys = [\"{key}\"]"));
    let closed = Gateway::start(&closed_config);
    let (code, words, text) = doctor(&closed, &["--key", key]);
    assert_eq!(
        (code, words.join(" ").as_str()),
        (Some(1), "ok   ok   FAIL FAIL ok   FAIL     "),
        "{text}"
    );
    for word in [
        "401",
        "open_routes = [\"tei\"]",
        "open_routes = [\"embeddings\"]",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let keys = format!("keys = [\"{key}\"]");
    let open_routes = "open_routes = [\"embeddings\", \"tei\", \"rerank\"]";
    let open = closed_config.replace(&keys, &format!("{keys}\n{open_routes}"));
    let open = Gateway::start(&open);
    let (code, _, text) = doctor(&open, &["--key", key, "--rerank-model", "tiny"]);
    assert_eq!(code, Some(0), "{text}");
    let (_, words, text) = doctor(&closed, &[]);
    assert_eq!(words[0], "FAIL");
    assert!(text.contains("--key"), "{text}");
}

#[tokio::test]
async fn embed_all_gives_the_vectors_that_pooling_takes_the_mean_of() {
    let (model, file) = (minilm(), converted(&minilm()));
    let gateway = Gateway::start(&format!(
        "default_model = \"candle\"\n[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.candle]\npath = {model:?}\n\
         [models.onnx]\npath = {model:?}\nbackend = {{ type = \"onnx\", file = {file:?} }}\n"
    ));
    let texts = ["The cat sits on the mat.", "", "猫坐在垫子上。"];
    for model in ["candle", "onnx"] {
        let body = json!({"model": model, "inputs": texts});
        let all = ok(&gateway, "/embed_all", body.clone()).await;
        let pooled = ok(&gateway, "/embed", body.clone()).await;
        let tokens = ok(&gateway, "/tokenize", body).await;
        for (i, text) in texts.iter().enumerate() {
            let rows: Vec<Vec<f32>> = all[i].as_array().unwrap().iter().map(numbers).collect();
            assert_eq!(rows.len(), tokens[i].as_array().unwrap().len(), "{text}");
            let mut mean = vec![0.0_f32; 384];
            for row in &rows {
                mean.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += x / rows.len() as f32);
            }
            let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
            mean.iter_mut().for_each(|x| *x /= length);
            assert!(
                max_difference(&mean, &numbers(&pooled[i])) < SAME,
                "{model} {text}"
            );
        }
        // Kept ones are the same.
        let again = ok(
            &gateway,
            "/embed_all",
            json!({"model": model, "inputs": texts[0]}),
        )
        .await;
        assert_eq!(again[0], all[0]);
    }
    let refused = ask(&gateway, "/embed_all", json!({"inputs": []})).await;
    assert_eq!(
        (refused.status, &refused.body["error_type"]),
        (400, &json!("Empty"))
    );
}
