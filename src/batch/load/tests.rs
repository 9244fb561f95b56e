use super::*;
use crate::batch::load::promises::SPREAD;

/// Returns the patience of a new request.
fn soon() -> Patience<'static> {
    let deadline = Instant::now() + Duration::from_secs(10);
    Patience::until(deadline, Box::leak(Box::default()))
}

/// Asserts that a time is this one or up to the spread later.
fn assert_about(found: Duration, seconds: f64) {
    let found = found.as_secs_f64();
    let latest = seconds * (1.0 + SPREAD) + 0.02;
    assert!(
        (seconds - 0.02..=latest).contains(&found),
        "{found} for {seconds}"
    );
}

#[test]
fn all_or_none_are_admitted_and_the_time_to_wait_is_that_of_what_is_missing() {
    let load = Arc::new(QueueLoad::new(4, 4, 100.0));
    let three = load.admit(&[10, 10, 10], Lane::Query, soon()).unwrap();
    let refused = load
        .admit(&[10, 10, 10], Lane::Query, soon())
        .err()
        .unwrap();
    // Two inputs of 10 tokens have to leave, at 100 tokens a second: that is less than the least.
    let Refusal::Full { retry_after } = refused else {
        panic!("{refused:?}")
    };
    assert_about(retry_after, 0.25);
    assert_eq!(load.in_flight(), 3, "a refusal takes nothing");
    drop(three);
    assert_eq!(
        (load.in_flight(), load.wait(Lane::Bulk, 1)),
        (0, Duration::ZERO)
    );
    assert_eq!(load.admit(&[1; 4], Lane::Bulk, soon()).unwrap().len(), 4);
}

#[test]
fn who_would_wait_beyond_the_deadline_is_refused_at_once() {
    let load = Arc::new(QueueLoad::new(100, 100, 100.0));
    let _bulk = load.admit(&[1000, 500], Lane::Bulk, soon()).unwrap();
    assert!(
        load.admit(&[1], Lane::Query, soon()).is_ok(),
        "bulk is not ahead of a query"
    );
    let refused = load.admit(&[1], Lane::Bulk, soon()).err().unwrap();
    let Refusal::TooLate { retry_after } = refused else {
        panic!("{refused:?}")
    };
    assert_about(retry_after, 5.0);
    assert_eq!(load.in_flight(), 2);
}

#[test]
fn nobody_waits_longer_than_max_queue_time_and_the_refused_come_back_one_after_another() {
    let load = QueueLoad::new(100, 100, 100.0).with_max_queue_time(|lane| match lane {
        Lane::Query => Duration::from_secs(1),
        Lane::Bulk => Duration::from_secs(3),
    });
    let load = Arc::new(load);
    // A request's own work is not ahead of it.
    let _first = load.admit(&[200; 2], Lane::Bulk, soon()).unwrap();
    let later = |tokens| load.admit(&[tokens], Lane::Bulk, soon()).err().unwrap();
    // When half of what may be ahead is: 1.5 of the 4 seconds.
    let mut expected = 2.5;
    for tokens in [100, 50, 200] {
        let Refusal::TooLong { retry_after, most } = later(tokens) else {
            panic!("others are admitted before")
        };
        assert_eq!(most, Duration::from_secs(3));
        assert_about(retry_after, expected);
        expected += tokens as f64 / 100.0;
    }
    // Queries have their own line, and what has begun goes on.
    let query = load.admit(&[150], Lane::Query, soon()).unwrap();
    let refused = load.admit(&[1], Lane::Query, soon());
    assert!(matches!(refused, Err(Refusal::TooLong { .. })));
    drop(query);
    let patience = soon();
    assert!(load.admit(&[1], Lane::Query, patience).is_ok());
    let _more = load.admit(&[150], Lane::Query, soon()).unwrap();
    assert!(load.admit(&[1], Lane::Query, patience).is_ok());
}

#[test]
fn what_goes_beside_a_long_input_does_not_wait_for_it() {
    let load = Arc::new(QueueLoad::new(100, 100, 100.0));
    load.set_most_beside(50);
    let _long = load.admit(&[8000], Lane::Query, soon()).unwrap();
    let wait = |lane, tokens| load.wait(lane, tokens).as_secs_f64();
    assert_eq!(wait(Lane::Query, 50), 0.0);
    assert_eq!(wait(Lane::Query, 51), 80.0);
    assert_eq!(
        wait(Lane::Bulk, 50),
        80.0,
        "bulk does not go beside queries"
    );
    let mut short = load.admit(&[40], Lane::Query, soon()).unwrap().remove(0);
    assert_eq!(
        wait(Lane::Query, 50),
        0.8,
        "half of the time is the long one's"
    );
    assert!(load.admit(&[51], Lane::Query, soon()).is_err());
    // It was longer than estimated.
    short.set_tokens(60);
    assert_eq!((wait(Lane::Query, 50), wait(Lane::Query, 51)), (0.0, 80.6));
    load.set_most_beside(70);
    assert_eq!(wait(Lane::Query, 60), 0.0);
    drop(short);
    assert_eq!(wait(Lane::Query, 71), 80.0);
}

#[test]
fn bulk_leaves_room_for_queries() {
    let load = Arc::new(QueueLoad::new(4, 3, 100.0));
    let _bulk = load.admit(&[1; 3], Lane::Bulk, soon()).unwrap();
    assert!(load.admit(&[1], Lane::Bulk, soon()).is_err());
    assert_eq!(load.admit(&[1], Lane::Query, soon()).unwrap().len(), 1);
    assert_eq!(Lane::ALL.map(|lane| load.most_at_once(lane)), [4, 3]);
}

#[test]
fn estimates_are_corrected_and_given_back_whole() {
    let load = Arc::new(QueueLoad::new(4, 4, 100.0));
    let mut one = load.admit(&[100], Lane::Query, soon()).unwrap().remove(0);
    one.set_tokens(30);
    assert_eq!(load.wait(Lane::Query, 1), Duration::from_millis(300));
    drop(one);
    assert_eq!(load.wait(Lane::Query, 1), Duration::ZERO);
}

#[test]
fn the_rate_follows_the_work_of_all_replicas() {
    let load = QueueLoad::new(4, 4, 1.0);
    for _ in 0..100 {
        load.observe(500, Duration::from_secs(1), 2);
    }
    assert!((load.rate() - 1000.0).abs() < 1.0, "{}", load.rate());
}
