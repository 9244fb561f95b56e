use embedgate_plugin::test::{self, TestHost, Value, json};

use super::*;

fn host(settings: &Value) -> TestHost {
    let host = TestHost::new().with_kv(100, 100_000);
    host.init::<Quota>(settings).expect("settings are right");
    host
}

/// Sends a request of so many token ids.
fn send(host: &TestHost, subject: &str, n: usize) -> Result<(), Rejection> {
    let caller = Some(Principal::new(subject));
    let outcome = host.preprocess::<Quota>(test::tokens(&[&vec![0; n]]), caller)?;
    assert_eq!(outcome, Outcome::Unchanged);
    Ok(())
}

#[test]
fn a_day_has_room_for_its_tokens_and_no_more() {
    let host = host(&json!({ "per_day": 10 }));
    assert_eq!(send(&host, "ali", 10), Ok(()));
    let rejection = send(&host, "ali", 1).expect_err("used up");
    assert_eq!(
        (rejection.status, rejection.code.as_str()),
        (429, "quota_exceeded")
    );
    // The test host's clock stands at 08:00 UTC.
    assert_eq!(
        rejection.header("retry-after"),
        Some((16 * 3600).to_string().as_str())
    );
    assert_eq!(
        rejection.message,
        "the quota of 10 tokens a day has room for 0 more until midnight UTC, the request has about 1"
    );
}

#[test]
fn a_refused_request_uses_nothing_up() {
    let host = host(&json!({ "per_day": 10 }));
    assert!(send(&host, "ali", 11).is_err());
    assert_eq!(send(&host, "ali", 6), Ok(()));
    assert!(send(&host, "ali", 5).is_err());
    assert_eq!(send(&host, "ali", 4), Ok(()));
}

#[test]
fn a_new_day_begins_at_midnight_utc() {
    let host = host(&json!({ "per_day": 10 }));
    assert_eq!(send(&host, "ali", 10), Ok(()));
    host.advance(Duration::from_secs(16 * 3600 - 1));
    assert_eq!(
        send(&host, "ali", 1)
            .expect_err("still today")
            .header("retry-after"),
        Some("1")
    );
    host.advance(Duration::from_secs(1));
    assert_eq!(send(&host, "ali", 10), Ok(()));
}

#[test]
fn every_caller_has_a_quota_of_its_own() {
    let host = host(&json!({
        "per_day": 10,
        "subjects": { "big": { "per_day": 20 }, "free": { "per_day": 0 } },
    }));
    assert_eq!(send(&host, "ali", 10), Ok(()));
    assert_eq!(send(&host, "eve", 10), Ok(()));
    assert_eq!(send(&host, "big", 20), Ok(()));
    assert!(send(&host, "big", 1).is_err());
    assert_eq!(send(&host, "free", 1_000_000), Ok(()));
}

#[test]
fn callers_whom_nobody_knows_share_a_quota() {
    let host = host(&json!({ "per_day": 1 }));
    assert!(host.preprocess::<Quota>(test::texts(&["a"]), None).is_ok());
    assert!(host.preprocess::<Quota>(test::texts(&["a"]), None).is_err());
}

#[test]
fn requests_are_limited_by_the_minute() {
    let host = host(
        &json!({ "per_day": 0, "per_minute": 2, "subjects": { "fast": { "per_minute": 3 } } }),
    );
    assert_eq!(send(&host, "ali", 1), Ok(()));
    assert_eq!(send(&host, "ali", 1), Ok(()));
    let rejection = send(&host, "ali", 1).expect_err("the third");
    assert_eq!(
        (rejection.code.as_str(), rejection.header("retry-after")),
        ("rate_limit_exceeded", Some("30"))
    );
    host.advance(Duration::from_secs(30));
    assert_eq!(send(&host, "ali", 1), Ok(()));
    for _ in 0..3 {
        assert_eq!(send(&host, "fast", 1), Ok(()));
    }
    assert!(send(&host, "fast", 1).is_err());
}

#[test]
fn where_nothing_can_be_counted_the_settings_decide() {
    for (when_full, status) in [("reject", Some(503)), ("allow", None)] {
        let host = TestHost::new().with_kv(0, 0);
        host.init::<Quota>(&json!({ "per_day": 1, "when_full": when_full }))
            .expect("settings are right");
        assert_eq!(
            send(&host, "ali", 5)
                .err()
                .map(|rejection| rejection.status),
            status
        );
        assert_eq!(host.log_lines().is_empty(), when_full == "reject");
    }
}
