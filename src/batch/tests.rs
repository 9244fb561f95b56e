use std::sync::atomic::Ordering;

use embedgate_core::{Head, Row};
use embedgate_mock::{
    Control, FAIL_TOKEN, LOST_TOKEN, MockBackend, NAN_IN_COMPANY_TOKEN, NAN_TOKEN, PANIC_TOKEN,
};
use embedgate_request::{ErrorKind, Lane};

use super::*;
use crate::testing::{TestGateway, patient};

async fn run(gateway: &TestGateway, lane: Lane, ids: &[u32]) -> Result<Row, Error> {
    let model = gateway.model();
    let admission = model
        .batcher()
        .admit(&[ids.len()], lane, patient())?
        .remove(0);
    let work = SequenceWork {
        ids: ids.to_vec(),
        type_ids: Vec::new(),
        outputs: Outputs::DENSE,
        urgent: Urgent::default(),
        admission,
        timings: Arc::default(),
    };
    model.batcher().embed(work).await
}

fn vector(result: &Result<Row, Error>) -> Vec<f32> {
    let row = result.as_ref().unwrap();
    row.vector(Head::Dense).unwrap().to_vec()
}

/// Holds the worker at the gate with one sequence, queues the others behind it, then lets go.
async fn together(gateway: &Arc<TestGateway>, all: &[(Lane, &[u32])]) -> Vec<Result<Row, Error>> {
    gateway.control.close();
    let spawn = |lane: Lane, ids: &[u32]| {
        let (gateway, ids) = (Arc::clone(gateway), ids.to_vec());
        tokio::spawn(async move { run(&gateway, lane, &ids).await })
    };
    let first = spawn(Lane::Query, &[1]);
    gateway.batch_waits().await;
    let rest: Vec<_> = all.iter().map(|(lane, ids)| spawn(*lane, ids)).collect();
    gateway.in_flight(all.len() + 1).await;
    // All are in the channel now, and the queue's task empties that before it looks at the worker again.
    gateway.control.open();
    first.await.unwrap().unwrap();
    let mut results = Vec::new();
    for task in rest {
        results.push(task.await.unwrap());
    }
    results
}

fn queries<'a>(all: &[&'a [u32]]) -> Vec<(Lane, &'a [u32])> {
    all.iter().map(|ids| (Lane::Query, *ids)).collect()
}

#[tokio::test]
async fn sequences_of_many_callers_share_a_batch_and_each_gets_its_own_row() {
    let gateway = Arc::new(TestGateway::start());
    let all: [&[u32]; 3] = [&[5, 6], &[7], &[8, 9, 10]];
    let results = together(&gateway, &queries(&all)).await;
    for (result, ids) in results.iter().zip(all) {
        assert_eq!(vector(result), MockBackend::vector(ids, 8));
    }
    assert_eq!(gateway.control.batches().len(), 2);
}

#[tokio::test]
async fn a_bad_row_is_retried_alone_and_fails_only_its_own_caller() {
    let gateway = Arc::new(TestGateway::start());
    let all: [&[u32]; 3] = [&[5], &[NAN_TOKEN], &[NAN_IN_COMPANY_TOKEN, 3]];
    let results = together(&gateway, &queries(&all)).await;
    assert!(results[0].is_ok());
    assert_eq!(results[1].as_ref().unwrap_err().kind, ErrorKind::Internal);
    assert_eq!(vector(&results[2]), MockBackend::vector(all[2], 8));
}

#[tokio::test]
async fn a_failing_batch_fails_only_the_sequence_that_makes_it_fail() {
    let gateway = Arc::new(TestGateway::start());
    let all: [&[u32]; 3] = [&[5], &[FAIL_TOKEN], &[6]];
    let results = together(&gateway, &queries(&all)).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(results[1].as_ref().unwrap_err().kind, ErrorKind::Internal);
    assert!(gateway.model().batcher().is_healthy());
}

#[tokio::test]
async fn queries_overtake_bulk() {
    let gateway = Arc::new(TestGateway::with(|setup| setup.budget.max_batch_tokens = 1));
    let all: [(Lane, &[u32]); 4] = [
        (Lane::Bulk, &[20]),
        (Lane::Bulk, &[21]),
        (Lane::Query, &[30]),
        (Lane::Query, &[31]),
    ];
    let results = together(&gateway, &all).await;
    assert!(results.iter().all(Result::is_ok));
    let order: Vec<u32> = gateway.control.batches().iter().map(|b| b[0][0]).collect();
    assert_eq!(order[..3], [1, 30, 31]);
}

/// The clock is stopped and jumps when everybody waits, so pauses pass at once.
#[tokio::test(start_paused = true)]
async fn a_lost_backend_is_loaded_again_with_growing_pauses_and_serves_again() {
    for bad in [PANIC_TOKEN, LOST_TOKEN] {
        let gateway = TestGateway::with(|setup| setup.failing_reloads = 2);
        let error = run(&gateway, Lane::Query, &[bad]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let model = gateway.model();
        gateway.until(|| !model.batcher().is_healthy()).await;
        let error = run(&gateway, Lane::Query, &[1]).await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some("model_unavailable"));
        assert!(
            error
                .retry_after
                .is_some_and(|after| after >= Duration::from_secs(1))
        );
        let began = tokio::time::Instant::now();
        while !model.batcher().is_healthy() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // After 1, 2 and 4 seconds; the first two attempts fail.
        let waited = began.elapsed().as_secs_f64();
        assert!((6.9..7.2).contains(&waited), "{waited}");
        assert_eq!(gateway.n_reloads.load(Ordering::SeqCst), 3);
        let row = run(&gateway, Lane::Query, &[1]).await;
        assert_eq!(vector(&row), MockBackend::vector(&[1], 8));
        assert_eq!(model.metrics.restarts.get(), 1);
    }
}

#[tokio::test]
async fn who_waits_when_the_last_replica_is_lost_is_told_at_once() {
    let gateway = Arc::new(TestGateway::with(|setup| setup.budget.max_batch_tokens = 1));
    let all: [&[u32]; 3] = [&[PANIC_TOKEN], &[6], &[7]];
    for result in together(&gateway, &queries(&all)).await {
        assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable);
    }
    assert_eq!(
        gateway.model().batcher().in_flight(),
        0,
        "no permit is lost"
    );
}

#[tokio::test]
async fn while_one_replica_is_lost_the_other_serves() {
    let gateway = Arc::new(TestGateway::with(|setup| {
        setup.replicas = 2;
        setup.failing_reloads = usize::MAX;
    }));
    assert!(run(&gateway, Lane::Query, &[PANIC_TOKEN]).await.is_err());
    for id in 1..50 {
        let row = run(&gateway, Lane::Query, &[id]).await;
        assert_eq!(vector(&row), MockBackend::vector(&[id], 8));
    }
    assert!(gateway.model().batcher().is_healthy());
}

/// Runs a sequence on each of two replicas at once.
async fn on_both_replicas(gateway: &Arc<TestGateway>) {
    gateway.control.close();
    let spawn = |id: u32| {
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move { run(&gateway, Lane::Query, &[id]).await })
    };
    let both = [spawn(1), spawn(2)];
    // Two batches are at the gate at once: one alone would keep the other in the queue.
    gateway.until(|| gateway.control.batches().len() == 2).await;
    gateway.control.open();
    for task in both {
        assert!(task.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn replicas_work_side_by_side() {
    let gateway = Arc::new(TestGateway::with(|setup| {
        setup.replicas = 2;
        setup.budget.max_batch_tokens = 1;
    }));
    on_both_replicas(&gateway).await;
}

#[tokio::test]
async fn who_leaves_gives_the_permit_back_and_costs_no_work() {
    let gateway = Arc::new(TestGateway::start());
    gateway.control.close();
    let spawn = |id: u32| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { run(&gateway, Lane::Query, &[id]).await })
    };
    let first = spawn(1);
    gateway.batch_waits().await;
    let left = spawn(2);
    gateway.in_flight(2).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    gateway.control.open();
    first.await.unwrap().unwrap();
    run(&gateway, Lane::Query, &[3]).await.unwrap();
    assert_eq!(gateway.control.batches(), [vec![vec![1]], vec![vec![3]]]);
    assert_eq!(gateway.model().batcher().in_flight(), 0);
}

/// A gateway for which two tokens are a long batch.
fn gateway_of_long_batches() -> Arc<TestGateway> {
    Arc::new(TestGateway::with(|setup| {
        setup.tokens_per_second = 1.0;
        setup.budget.max_batch_seconds = 1.0;
    }))
}

/// Starts a long batch of query lane or bulk that does not end before the gate is opened.
async fn long_batch(
    gateway: &Arc<TestGateway>,
    lane: Lane,
    ids: &'static [u32],
) -> tokio::task::JoinHandle<Result<Row, Error>> {
    gateway.control.close();
    let batches = gateway.control.batches().len();
    let running = Arc::clone(gateway);
    let long = tokio::spawn(async move { run(&running, lane, ids).await });
    gateway
        .until(|| gateway.control.batches().len() > batches)
        .await;
    long
}

#[tokio::test]
async fn short_sequences_do_not_wait_for_the_end_of_a_long_one() {
    let gateway = gateway_of_long_batches();
    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    for id in 10..30 {
        let row = run(&gateway, Lane::Query, &[id]).await;
        assert_eq!(vector(&row), MockBackend::vector(&[id], 8));
    }
    assert!(!long.is_finished());
    gateway.control.open();
    let row = long.await.unwrap();
    assert_eq!(vector(&row), MockBackend::vector(&[5, 6, 7], 8));
    assert_eq!(gateway.model().batcher().in_flight(), 0);
}

#[tokio::test]
async fn bulk_goes_beside_bulk_and_not_beside_queries() {
    let gateway = gateway_of_long_batches();
    let long = long_batch(&gateway, Lane::Bulk, &[5, 6, 7]).await;
    assert!(run(&gateway, Lane::Bulk, &[10]).await.is_ok());
    assert!(run(&gateway, Lane::Query, &[11]).await.is_ok());
    gateway.control.open();
    assert!(long.await.unwrap().is_ok());

    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    let other = Arc::clone(&gateway);
    let bulk = tokio::spawn(async move { run(&other, Lane::Bulk, &[12]).await });
    gateway.in_flight(2).await;
    // The queue has seen the bulk when it serves what came later.
    assert!(run(&gateway, Lane::Query, &[13]).await.is_ok());
    assert!(!bulk.is_finished());
    gateway.control.open();
    assert!(long.await.unwrap().is_ok() && bulk.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_free_replica_comes_before_an_interruption() {
    let gateway = Arc::new(TestGateway::with(|setup| {
        setup.tokens_per_second = 1.0;
        setup.budget.max_batch_seconds = 1.0;
        setup.replicas = 2;
    }));
    // A worker asks for more before it answers: once both have answered, both have asked.
    on_both_replicas(&gateway).await;
    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    let other = Arc::clone(&gateway);
    let short = tokio::spawn(async move { run(&other, Lane::Query, &[10]).await });
    // What runs beside a long batch does not wait at the gate.
    gateway.batch_waits().await;
    assert!(!short.is_finished());
    gateway.control.open();
    assert!(short.await.unwrap().is_ok() && long.await.unwrap().is_ok());
}

#[tokio::test]
async fn nothing_is_lost_when_a_long_batch_ends_as_a_short_one_comes() {
    for round in 0..100 {
        // What batches take here is far less than predicted: after some they would not be long any more.
        let gateway = gateway_of_long_batches();
        let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
        let short: Vec<_> = (0..4)
            .map(|id| {
                let gateway = Arc::clone(&gateway);
                tokio::spawn(async move { run(&gateway, Lane::Query, &[id]).await })
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        gateway.control.open();
        assert!(long.await.unwrap().is_ok());
        for (id, short) in (0..).zip(short) {
            assert_eq!(vector(&short.await.unwrap()), MockBackend::vector(&[id], 8));
        }
        assert_eq!(gateway.model().batcher().in_flight(), 0);
    }
}

#[tokio::test]
async fn what_becomes_urgent_goes_beside_a_long_query_at_once() {
    let gateway = gateway_of_long_batches();
    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    let urgent = Urgent::default();
    let work = SequenceWork {
        ids: vec![12],
        type_ids: Vec::new(),
        outputs: Outputs::DENSE,
        urgent: urgent.clone(),
        admission: gateway
            .model()
            .batcher()
            .admit(&[1], Lane::Bulk, patient())
            .unwrap()
            .remove(0),
        timings: Arc::default(),
    };
    let other = Arc::clone(&gateway);
    let bulk = tokio::spawn(async move { other.model().batcher().embed(work).await });
    // The queue has seen the bulk when it serves what came later.
    assert!(run(&gateway, Lane::Query, &[13]).await.is_ok());
    assert!(!bulk.is_finished());
    urgent.set();
    assert!(bulk.await.unwrap().is_ok());
    gateway.control.open();
    assert!(long.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_long_batch_that_nobody_waits_for_is_stopped() {
    let gateway = gateway_of_long_batches();
    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    long.abort();
    assert!(long.await.unwrap_err().is_cancelled());
    // The gate is closed still: it would not have ended.
    gateway.in_flight(0).await;
    gateway.control.open();
    assert!(run(&gateway, Lane::Query, &[8]).await.is_ok());
    assert_eq!(gateway.control.batches().len(), 2);
}

#[tokio::test]
async fn a_fault_beside_a_long_batch_is_the_backend_s() {
    for bad in [PANIC_TOKEN, LOST_TOKEN] {
        let gateway = gateway_of_long_batches();
        let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
        let error = run(&gateway, Lane::Query, &[bad]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let error = long.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        // No permit is lost.
        gateway.in_flight(0).await;
    }
}

#[tokio::test]
async fn a_failure_beside_a_long_batch_is_its_own() {
    let gateway = gateway_of_long_batches();
    let long = long_batch(&gateway, Lane::Query, &[5, 6, 7]).await;
    let error = run(&gateway, Lane::Query, &[FAIL_TOKEN]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    gateway.control.open();
    assert!(long.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_row_holds_what_its_own_caller_asked_for() {
    let gateway = Arc::new(TestGateway::start());
    let control: Control = gateway.control.clone();
    let held = gateway.hold(serde_json::json!([1])).await;
    let ask = |ids: &'static [u32], outputs: Outputs| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let model = gateway.model();
            let admitted = model.batcher().admit(&[1], Lane::Query, patient());
            let work = SequenceWork {
                ids: ids.to_vec(),
                type_ids: Vec::new(),
                outputs,
                urgent: Urgent::default(),
                admission: admitted.unwrap().remove(0),
                timings: Arc::default(),
            };
            model.batcher().embed(work).await.unwrap()
        })
    };
    let dense = ask(&[4, 5, 6], Outputs::DENSE);
    let all = ask(&[7, 8, 9], Outputs::BGE_M3);
    gateway.in_flight(3).await;
    control.open();
    held.await.unwrap();
    let (dense, all) = (dense.await.unwrap(), all.await.unwrap());
    assert_eq!(dense.heads(), Outputs::DENSE);
    assert_eq!(all.heads(), Outputs::BGE_M3);
    assert_eq!(
        all.weights(Head::Sparse),
        Some(&MockBackend::sparse(&[7, 8, 9]))
    );
    assert_eq!(
        all.rows(Head::MultiVector),
        Some(&MockBackend::multi_vector(&[7, 8, 9], 8))
    );
    assert_eq!(control.batches().len(), 2, "one pass for both");
}
