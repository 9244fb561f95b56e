//! Cross-encoders: their scores, and documents that are longer than they take.

use embedgate_test_support::{Gateway, Reference, fixtures, texts, tiny_config};
use serde_json::{Value, json};

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
            let answer = gateway.ok("/rerank", &body).await;
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
            let answer = gateway.ok("/rerank", &body).await;
            let score = answer[0]["score"].as_f64().unwrap();
            assert!(
                (score - expected).abs() < 1e-4,
                "{name} {pair:?}: {score} {expected}"
            );
        }

        let body = json!({"query": "a question", "documents": ["one", "two", "word ".repeat(500)]});
        let answer = gateway.ok("/v1/rerank", &body).await;
        for line in answer["results"].as_array().unwrap() {
            let score = line["relevance_score"].as_f64().unwrap();
            assert!(score > 0.0 && score < 1.0, "{answer}");
        }
        let body = json!({"query": "a", "texts": ["b".to_owned(), "word ".repeat(500)], "truncate": false});
        let refused = gateway.ask("/rerank", &body).await;
        assert_eq!(refused.status, 422);
        let message = refused.body["error"].as_str().unwrap();
        assert!(
            message.contains("documents[1]") && message.contains("at most 128"),
            "{message}"
        );
        let body = json!({"query": "word ".repeat(500), "documents": ["b"], "truncate": false});
        let refused = gateway.ask("/v1/rerank", &body).await;
        let error = &refused.body["error"];
        assert_eq!((refused.status, &error["param"]), (400, &json!("query")));
        let message = error["message"].as_str().unwrap();
        let expected = "of which model \"ranker\" takes at most 96 beside a document";
        assert!(message.contains(expected), "{message}");
        for (path, body) in [
            ("/v1/embeddings", json!({"input": "a", "dimensions": 4})),
            ("/embed", json!({"inputs": "a"})),
        ] {
            let answer = gateway.ask(path, &body).await;
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
            let answer = gateway.ask("/v1/rerank", &body).await;
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
        let tokens = gateway.ok("/tokenize", &body).await;
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
            let tokens = gateway.ok("/tokenize", &body).await;
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
        let answer = gateway.ask("/v1/rerank", &body).await;
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
        let refused = gateway.ask("/v1/rerank", &body).await;
        assert_eq!(refused.status, 400);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(
            message
                .contains("make more than 2048 windows, which is what model \"m\" takes at once"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_cross_encoder_reranks_where_no_model_is_named_and_embeds_for_nobody() {
    let ranker = fixtures().join("tiny-bert-reranker");
    let config = tiny_config(&format!("[models.ranker]\npath = {ranker:?}"));
    let gateway = Gateway::start(&format!("default_model = \"tiny\"\n{config}"));
    let body = json!({"query": "a question", "documents": ["one", "two"]});
    let unnamed = gateway.ok("/v1/rerank", &body).await;
    assert_eq!(unnamed["model"], "ranker");
    let mut named = body;
    named["model"] = json!("tiny");
    let named = gateway.ok("/v1/rerank", &named).await;
    assert_ne!(
        named["results"][0]["relevance_score"],
        unnamed["results"][0]["relevance_score"]
    );
    let vectors = gateway.ok("/embed", &json!({"inputs": "a"})).await;
    assert_eq!(vectors[0].as_array().unwrap().len(), 64);
    let nvidia = json!({"input": "a", "truncate": "END", "input_type": "query"});
    assert_eq!(gateway.embed(&nvidia).await.status, 200);
}
