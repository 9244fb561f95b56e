//! The request path as a whole, over a mock backend: the router, the pipeline, the cache, the queue.

use std::collections::BTreeMap;

use base64_simd::STANDARD;
use embedgate_config::{AuthConfig, CachePolicy, KeyConfig, ModelConfig, Period, ValuePrecision};
use embedgate_core::{Head, Outputs};
use embedgate_mock::{MockBackend, NAN_TOKEN};
use embedgate_request::{
    Account, EmbedRequest, EmbedResponse, Error, Input, Principal, RequestContext,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    embed::{Embedder, Preprocessed},
    testing::{DIMENSIONS, TestGateway, far},
};

fn model(config: impl FnOnce(&mut ModelConfig)) -> BTreeMap<String, ModelConfig> {
    let mut model = ModelConfig::default();
    config(&mut model);
    BTreeMap::from([("m".to_owned(), model)])
}

/// The vectors of an answer, bit for bit.
fn bits(answer: &Value) -> Vec<Vec<u32>> {
    let one = |item: &Value| -> Vec<u32> {
        match &item["embedding"] {
            Value::String(text) => {
                let bytes = STANDARD.decode_to_vec(text).unwrap();
                let words = bytes.as_chunks::<4>().0.iter();
                words.map(|b| f32::from_le_bytes(*b).to_bits()).collect()
            }
            numbers => serde_json::from_value::<Vec<f32>>(numbers.clone())
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect(),
        }
    };
    answer["data"].as_array().unwrap().iter().map(one).collect()
}

/// One request: texts and token ids from a small set, so that there are hits, misses and twins.
#[derive(Clone, Debug)]
struct Ask {
    texts: Vec<usize>,
    as_ids: bool,
    base64: bool,
    dimensions: Option<usize>,
}

fn ask() -> impl Strategy<Value = Ask> {
    (
        prop::collection::vec(0_usize..12, 1..8),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(1_usize..=DIMENSIONS),
    )
        .prop_map(|(texts, as_ids, base64, dimensions)| Ask {
            texts,
            as_ids,
            base64,
            dimensions,
        })
}

impl Ask {
    fn body(&self) -> Value {
        let input: Vec<Value> = self
            .texts
            .iter()
            .map(|i| {
                if self.as_ids {
                    json!([i + 1, i + 2, 3])
                } else {
                    json!("word ".repeat(*i))
                }
            })
            .collect();
        let format = if self.base64 { "base64" } else { "float" };
        json!({"model": "m", "input": input, "encoding_format": format, "dimensions": self.dimensions})
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_is_kept_the_answer_is_bit_for_bit_that_of_an_empty_cache(
        asks in prop::collection::vec(ask(), 1..12),
        half in any::<bool>(),
        tiny in any::<bool>(),
        lru in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let gateway = |size: u64| TestGateway::with(|setup| {
                setup.config.cache.max_size.0 = size;
                setup.config.cache.value_precision = if half { ValuePrecision::F16 } else { ValuePrecision::F32 };
                setup.config.cache.policy = if lru { CachePolicy::Lru } else { CachePolicy::TinyLfu };
            });
            // A tiny cache holds five of the twelve vectors.
            let kept = gateway(if tiny { 1200 } else { 1 << 20 });
            // Half of the requests run side by side, so that some wait for others.
            for pair in asks.chunks(2) {
                let answers: Vec<_> = pair.iter().map(|ask| tokio::spawn(kept.post(&[], &ask.body()))).collect();
                for (ask, answer) in pair.iter().zip(answers) {
                    let answer = answer.await.unwrap();
                    let fresh = gateway(0).post(&[], &ask.body()).await;
                    assert_eq!(answer.status, 200);
                    assert_eq!(bits(&answer.body), bits(&fresh.body));
                    assert_eq!(answer.body["usage"], fresh.body["usage"]);
                }
            }
            assert_eq!(kept.model().batcher().in_flight(), 0);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_for_one_new_text_are_one_sequence() {
    let gateway = TestGateway::start();
    gateway.control.close();
    let all: Vec<_> = (0..1000)
        .map(|_| tokio::spawn(gateway.embed(json!("the same text"))))
        .collect();
    gateway.batch_waits().await;
    let metrics = gateway.model().metrics.clone();
    gateway
        .until(|| metrics.coalesced.get() + metrics.misses.get() == 1000)
        .await;
    assert_eq!(
        gateway.model().batcher().in_flight(),
        1,
        "who joins takes no permit"
    );
    gateway.control.open();
    for answer in all {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(gateway.control.n_sequences(), 1);
}

#[tokio::test]
async fn twins_within_a_request_are_computed_once() {
    let gateway = TestGateway::start();
    let answer = gateway.embed(json!(["a", "b", "a", "a"])).await;
    assert_eq!(gateway.control.n_sequences(), 2);
    let vectors = bits(&answer.body);
    assert_eq!((&vectors[0], &vectors[0]), (&vectors[2], &vectors[3]));
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_take_the_work_from_those_who_joined() {
    let gateway = TestGateway::start();
    let held = gateway.hold(json!([1])).await;
    let leader = tokio::spawn(gateway.embed(json!([7, 8])));
    gateway.in_flight(2).await;
    let follower = tokio::spawn(gateway.embed(json!([7, 8])));
    let metrics = gateway.model().metrics.clone();
    gateway.until(|| metrics.coalesced.get() == 1).await;
    leader.abort();
    assert!(leader.await.is_err());
    gateway.control.open();
    assert_eq!(follower.await.unwrap().status, 200);
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(
        gateway.control.n_sequences(),
        2,
        "the work was not done twice"
    );
}

#[tokio::test]
async fn two_hundred_leaders_who_leave_do_no_harm_to_the_next() {
    let gateway = TestGateway::start();
    let held = gateway.hold(json!([1])).await;
    for _ in 0..300 {
        let leader = tokio::spawn(gateway.embed(json!([7, 8])));
        gateway.in_flight(2).await;
        leader.abort();
        assert!(leader.await.is_err());
        gateway.in_flight(1).await;
    }
    gateway.control.open();
    held.await.unwrap();
    assert_eq!(gateway.embed(json!([7, 8])).await.status, 200);
    assert_eq!(gateway.control.n_sequences(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_who_vanish_leave_nothing_behind() {
    let gateway = TestGateway::with(|setup| {
        setup.config.models = model(|m| m.queue_capacity = 20_000);
    });
    let held = gateway.hold(json!([1])).await;
    let all: Vec<_> = (0..10_000)
        .map(|i| tokio::spawn(gateway.embed(json!([2, i % 90_000, 3]))))
        .collect();
    let metrics = gateway.model().metrics.clone();
    gateway
        .until(|| metrics.misses.get() + metrics.coalesced.get() > 5000)
        .await;
    for task in &all {
        task.abort();
    }
    for task in all {
        drop(task.await);
    }
    gateway.in_flight(1).await;
    gateway.control.open();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(gateway.embed(json!([4])).await.status, 200);
    assert_eq!(gateway.control.n_sequences(), 2, "no work for who is gone");
    assert_eq!(gateway.model().batcher().in_flight(), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_with_the_time_to_wait_and_still_serves_what_is_kept() {
    let gateway = TestGateway::with(|setup| {
        setup.config.models = model(|m| m.queue_capacity = 3);
        setup.tokens_per_second = 10.0;
    });
    assert_eq!(gateway.embed(json!([[50, 51]])).await.status, 200);
    let held = gateway.hold(json!([1])).await;
    let waiting = tokio::spawn(gateway.embed(json!([vec![2; 20], vec![3; 20]])));
    gateway.in_flight(3).await;
    let refused = gateway.embed(json!([vec![4; 5]])).await;
    assert_eq!((refused.status, refused.code()), (429, "overloaded"));
    // One input has to leave; three hold about 41 tokens, and the rate is whatever the first batch made of 10 a second.
    let ms: u64 = refused.headers["retry-after-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let seconds: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        ms >= 1 && seconds == ms.div_ceil(1000).max(1),
        "{ms} ms, {seconds} s"
    );
    assert_eq!(
        gateway.embed(json!([[50, 51]])).await.status,
        200,
        "a hit needs no permit"
    );
    gateway.control.open();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn who_is_turned_away_does_not_pay_for_it() {
    let gateway = TestGateway::with(|setup| {
        setup.config.models = model(|m| m.queue_capacity = 1);
        setup.config.auth = toml::from_str(
            "limits.few.tokens_per_minute = 30\nkeys = [{ name = \"a\", key = \"of-who-is-turned-away\", limit = \"few\" }, \
             { name = \"b\", key = \"of-who-fills-the-queue\" }]",
        )
        .unwrap();
    });
    let key = |key| ("authorization", key);
    let other = key("Bearer of-who-fills-the-queue");
    gateway.control.close();
    let held = tokio::spawn(gateway.post(&[other], &json!({"model": "m", "input": [1]})));
    gateway.batch_waits().await;
    let limited = key("Bearer of-who-is-turned-away");
    let body = json!({"model": "m", "input": [vec![2; 25]]});
    for _ in 0..3 {
        let refused = gateway.post(&[limited], &body).await;
        assert_eq!((refused.status, refused.code()), (429, "overloaded"));
    }
    gateway.control.open();
    assert_eq!(held.await.unwrap().status, 200);
    gateway.in_flight(0).await;
    assert_eq!(gateway.post(&[limited], &body).await.status, 200);
    // 25 of 30 are paid: the next one is let in, and makes a debt.
    let more = json!({"model": "m", "input": [vec![3; 25]]});
    assert_eq!(gateway.post(&[limited], &more).await.status, 200);
    let limit = gateway.post(&[limited], &more).await;
    assert_eq!((limit.status, limit.code()), (429, "rate_limit_exceeded"));
}

#[tokio::test]
async fn who_would_wait_beyond_the_own_deadline_is_refused_at_once() {
    let gateway = TestGateway::with(|setup| {
        setup.tokens_per_second = 10.0;
        setup.config.models = model(|m| m.bulk_max_queue_time = Period::seconds(3600));
    });
    let held = gateway.hold(json!([1])).await;
    let bulk = ("x-embedgate-lane", "bulk");
    let body = |id: u32| json!({"model": "m", "input": [vec![id; 500]]});
    let waiting = tokio::spawn(gateway.post(&[bulk], &body(2)));
    gateway.in_flight(2).await;
    // 500 tokens at 10 a second are 50 s.
    let hurried = gateway
        .post(&[bulk, ("x-request-timeout-ms", "5000")], &body(3))
        .await;
    assert_eq!((hurried.status, hurried.code()), (429, "overloaded"));
    assert!(
        hurried.message().contains("takes longer than the time"),
        "{}",
        hurried.message()
    );
    let patient = tokio::spawn(gateway.post(&[bulk, ("x-request-timeout-ms", "100000")], &body(3)));
    gateway.in_flight(3).await;
    gateway.control.open();
    for answer in [held, waiting, patient] {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn work_whose_deadline_passed_is_dropped_before_the_backend_sees_it() {
    let gateway = TestGateway::start();
    let held = gateway.hold(json!([1])).await;
    let hurried = gateway
        .post(
            // Long enough to be let in, on a busy machine too.
            &[("x-request-timeout-ms", "300")],
            &json!({"model": "m", "input": [2, 3]}),
        )
        .await;
    assert_eq!((hurried.status, hurried.code()), (504, "deadline_exceeded"));
    gateway.in_flight(1).await;
    gateway.control.open();
    held.await.unwrap();
    assert_eq!(gateway.control.n_sequences(), 1);
}

#[tokio::test]
async fn headers_that_say_nothing_are_refused_by_name() {
    let gateway = TestGateway::start();
    let body = json!({"model": "m", "input": "a"});
    for (name, value) in [
        ("x-embedgate-lane", "fast"),
        ("x-request-timeout-ms", "0"),
        ("x-request-timeout-ms", "soon"),
    ] {
        let answer = gateway.post(&[(name, value)], &body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.message().contains(name) && answer.message().contains(value));
    }
}

#[tokio::test]
async fn one_bad_input_fails_its_request_with_its_index_and_is_never_kept() {
    let gateway = TestGateway::start();
    let held = gateway.hold(json!([1])).await;
    let bad = tokio::spawn(gateway.embed(json!([[5], [6, NAN_TOKEN], [7]])));
    let good = tokio::spawn(gateway.embed(json!([[8], [9]])));
    gateway.in_flight(6).await;
    gateway.control.open();
    held.await.unwrap();
    let bad = bad.await.unwrap();
    assert_eq!(bad.status, 500);
    assert!(bad.message().contains("input[1]"), "{}", bad.message());
    assert_eq!(good.await.unwrap().status, 200);
    let before = gateway.control.n_sequences();
    assert_eq!(gateway.embed(json!([[6, NAN_TOKEN]])).await.status, 500);
    assert!(
        gateway.control.n_sequences() > before,
        "it was tried again, not remembered"
    );
}

#[tokio::test]
async fn principals_do_not_share_results_unless_the_config_says_so() {
    let key = |key: &str, name: Option<&str>| -> KeyConfig {
        let table = json!({"key": key, "name": name});
        serde_json::from_value(table).unwrap()
    };
    for (shared, expected) in [(false, 2), (true, 1)] {
        let gateway = TestGateway::with(|setup| {
            setup.config.cache.shared = shared;
            setup.config.auth = AuthConfig {
                mode: None,
                keys: vec![
                    key("first-key", Some("team")),
                    key("second-key", Some("team")),
                    key("third-key", None),
                ],
                ..AuthConfig::default()
            };
        });
        for key in ["first-key", "second-key", "third-key"] {
            let bearer = format!("Bearer {key}");
            let body = json!({"model": "m", "input": "a secret text"});
            let answer = gateway.post(&[("authorization", &bearer)], &body).await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(gateway.control.n_sequences(), expected, "shared = {shared}");
    }
}

#[tokio::test]
async fn an_answer_that_memory_has_no_room_for_is_refused_before_any_work() {
    let gateway = TestGateway::with(|setup| setup.config.server.max_bodies.0 = 8 << 10);
    let many: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    let answer = gateway.embed(json!(many)).await;
    assert_eq!((answer.status, answer.code()), (413, "payload_too_large"));
    assert_eq!(gateway.control.n_sequences(), 0);
    assert_eq!(gateway.embed(json!("one")).await.status, 200);
}

fn request(outputs: Outputs, ids: &[u32]) -> EmbedRequest {
    EmbedRequest {
        outputs,
        ..EmbedRequest::new(vec![Input::Tokens(ids.to_vec())])
    }
}

fn context() -> RequestContext {
    RequestContext {
        id: "test".into(),
        principal: Principal::Anonymous,
        deadline: far(),
        lane: None,
        memory: Account::unlimited(),
        timings: std::sync::Arc::default(),
        begun: std::sync::Arc::default(),
    }
}

async fn embed(embedder: &Embedder, request: EmbedRequest) -> Result<EmbedResponse, Error> {
    let ctx = context();
    let target = embedder.target(&ctx, request.model.as_deref())?;
    let request = Preprocessed::unchanged(request, target);
    embedder.pipeline().embed(&ctx, request).await
}

#[tokio::test]
async fn a_request_for_several_heads_takes_what_is_there_and_computes_the_rest_in_one_pass() {
    let gateway = TestGateway::start();
    let embedder: &Embedder = &gateway.gateway.embedder().unwrap();
    let ids = [5, 6, 7, 8];
    embed(embedder, request(Outputs::DENSE, &ids))
        .await
        .unwrap();
    let all = embed(embedder, request(Outputs::BGE_M3, &ids))
        .await
        .unwrap();
    let rest = Outputs::of(&[Head::Sparse, Head::MultiVector]);
    assert_eq!(gateway.control.outputs(), [Outputs::DENSE, rest]);
    let one = &all.embeddings[0].results;
    assert_eq!(one.weights(Head::Sparse), Some(&MockBackend::sparse(&ids)));
    let rows = one.rows(Head::MultiVector).unwrap();
    assert_eq!(rows.rows(), 3);
    let length: f32 = rows.row(0).iter().map(|x| x * x).sum();
    assert!(
        (length - 1.0).abs() < 1e-5,
        "each token's vector has length 1"
    );
    let again = embed(embedder, request(Outputs::BGE_M3, &ids))
        .await
        .unwrap();
    assert_eq!((gateway.control.outputs().len(), again.n_cached), (2, 1));
    assert_eq!(
        format!("{:?}", again.embeddings),
        format!("{:?}", all.embeddings)
    );
}

#[tokio::test]
async fn what_the_model_cannot_give_is_refused_by_name() {
    let gateway = TestGateway::start();
    let embedder: &Embedder = &gateway.gateway.embedder().unwrap();
    let error = embed(embedder, request(Outputs::SCORE, &[1]))
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "model \"m\" gives dense, sparse, multi-vector, not score"
    );
}

#[tokio::test]
async fn what_was_written_to_the_file_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        TestGateway::with(|setup| {
            setup.config.cache.file.path = Some(folder.path().join("new/results.redb"));
        })
    };
    let first = start();
    let before = first.embed(json!(["a", "b", "c"])).await;
    first.cache().flush().await;
    drop(first);
    let second = loop {
        // The file is free once the first one's task has ended.
        let gateway = start();
        if gateway.cache().has_file() {
            break gateway;
        }
        tokio::task::yield_now().await;
    };
    let after = second.embed(json!(["a", "b", "c", "d"])).await;
    assert_eq!(second.control.n_sequences(), 1, "only the new one");
    assert_eq!(second.model().metrics.from_file.get(), 3);
    assert_eq!(bits(&before.body)[..], bits(&after.body)[..3]);
    let again = second.embed(json!(["a", "b", "c", "d"])).await;
    assert_eq!(bits(&again.body), bits(&after.body));
    assert_eq!(second.model().metrics.hits.get(), 4, "from memory now");
}
