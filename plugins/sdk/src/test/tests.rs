use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::{Edits, Replacement, clock, http, kv, metrics, random, secrets};

/// Answers what its test puts in here.
struct Scripted;

thread_local! {
    static PRINCIPAL: RefCell<Result<Option<Principal>, Rejection>> = const { RefCell::new(Ok(None)) };
    static OUTCOME: RefCell<Outcome> = const { RefCell::new(Outcome::Unchanged) };
}

impl Authenticator for Scripted {
    fn authenticate(_: RequestHead) -> Result<Option<Principal>, Rejection> {
        PRINCIPAL.with_borrow(Clone::clone)
    }
}

impl Preprocessor for Scripted {
    fn preprocess(_: EmbedRequest, _: Option<Principal>) -> Result<Outcome, Rejection> {
        Ok(OUTCOME.with_borrow(Clone::clone))
    }
}

fn is_taken(answer: Result<Option<Principal>, Rejection>) -> bool {
    PRINCIPAL.with_borrow_mut(|slot| *slot = answer);
    let host = TestHost::new();
    catch_unwind(AssertUnwindSafe(|| host.authenticate::<Scripted>(head()))).is_ok()
}

fn are_taken(edits: Edits, request: EmbedRequest) -> bool {
    OUTCOME.with_borrow_mut(|slot| *slot = Outcome::Edited(edits));
    let host = TestHost::new();
    catch_unwind(AssertUnwindSafe(|| {
        host.preprocess::<Scripted>(request, None)
    }))
    .is_ok()
}

#[test]
fn a_principal_that_the_gateway_would_not_take_fails_the_test() {
    assert!(is_taken(Ok(Some(Principal::new("a".repeat(256))))));
    assert!(!is_taken(Ok(Some(Principal::new("a".repeat(257))))));
    assert!(!is_taken(Ok(Some(Principal::new("")))));
    assert!(!is_taken(Ok(Some(Principal::new("a\nb")))));
    assert!(!is_taken(Ok(Some(
        Principal::new("a").with_attribute("b", "c".repeat(256))
    ))));
}

#[test]
fn a_rejection_that_the_gateway_would_not_take_fails_the_test() {
    let rejection = Rejection::forbidden("no");
    assert!(is_taken(Err(rejection.clone().with_header("x-why", "so"))));
    assert!(!is_taken(Err(Rejection {
        status: 200,
        ..rejection.clone()
    })));
    assert!(!is_taken(Err(rejection.clone().with_code("No"))));
    assert!(!is_taken(Err(rejection
        .clone()
        .with_header("set-cookie", "a"))));
    assert!(!is_taken(Err(rejection
        .clone()
        .with_header("x-embedgate-lane", "a"))));
    assert!(!is_taken(Err(rejection.with_header("x-why", "a\r\nb"))));
}

#[test]
fn edits_that_the_gateway_would_not_take_fail_the_test() {
    let replacement = |index| Replacement {
        index,
        text: "x".to_owned(),
    };
    let two = || texts(&["a", "b"]);
    assert!(are_taken(
        Edits::some(vec![replacement(1), replacement(0)]),
        two()
    ));
    assert!(!are_taken(Edits::some(vec![replacement(2)]), two()));
    assert!(!are_taken(
        Edits::some(vec![replacement(1), replacement(1)]),
        two()
    ));
    assert!(!are_taken(Edits::all(vec!["x".to_owned()]), two()));
    assert!(!are_taken(Edits::prefix("x"), tokens(&[&[1]])));
    assert!(!are_taken(
        Edits::none().with_header("set-cookie", "a"),
        two()
    ));
}

#[test]
fn what_is_not_granted_is_not_there() {
    let host = TestHost::new();
    assert_eq!(secrets::get("A"), None);
    metrics::add("lookups", &[], 1);
    assert_eq!(host.samples(), []);
    for call in [
        || _ = kv::get("a"),
        || _ = crate::crypto::sha256(b""),
        || _ = http::Request::get("u").send(),
    ] {
        assert!(catch_unwind(call).is_err());
    }
}

#[test]
fn what_is_granted_is_there() {
    let host = TestHost::new()
        .with_secret("A", "b")
        .with_metrics(&["lookups"])
        .with_http(|request| {
            Ok(http::Response {
                status: 200,
                headers: Vec::new(),
                body: request.url.clone().into(),
            })
        });
    assert_eq!(secrets::get("A").as_deref(), Some("b"));
    metrics::add("lookups", &[("hit", "yes")], 2);
    let labels = vec![("hit".to_owned(), "yes".to_owned())];
    assert_eq!(
        host.samples(),
        [Sample {
            name: "lookups".to_owned(),
            labels,
            value: 2.0
        }]
    );
    assert_eq!(
        http::Request::get("https://a")
            .send()
            .map(|response| response.body),
        Ok(b"https://a".to_vec())
    );
    let before = clock::unix_ms();
    host.advance(Duration::from_secs(2));
    assert_eq!(clock::unix_ms() - before, 2000);
    assert_ne!(random::number(), random::number());
}

struct Eager;

impl Lifecycle for Eager {
    fn init(_: &str) -> Result<(), String> {
        kv::set("a", b"b", None).map_err(|error| error.to_string())
    }
}

#[test]
fn init_may_call_less_than_a_request() {
    let host = TestHost::new().with_kv(10, 1000);
    assert!(catch_unwind(AssertUnwindSafe(|| host.init::<Eager>(&json!({})))).is_err());
}
