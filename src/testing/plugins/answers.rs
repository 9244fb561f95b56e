//! The answers of guests: those that break the rules change nothing, and the others reach the client.

use embedgate_config::OnError;
use embedgate_plugin_host::SKIPPED;
use embedgate_request::Hook;

use super::Hostile;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_authenticators_that_break_the_rules_let_nobody_in() {
    let hostile = Hostile::new(Hook::Authenticate);
    let attacks = [
        "bad-status 200",
        "bad-status 0",
        "bad-status 399",
        "bad-status 600",
        "bad-status 65535",
        "bad-header set-cookie",
        "bad-header content-length",
        "bad-header x-embedgate-lane",
        "bad-header x-request-id",
        "bad-header-crlf",
        "bad-value-crlf",
        "many-headers",
        "long-code",
        "empty-code",
        "bad-code",
        "empty-subject",
        "long-subject",
        "control-subject",
        "huge-attributes",
        "many-attributes",
        "unknown-limit",
    ];
    hostile.contains(&attacks, "output").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_preprocessors_that_break_the_rules_change_nothing() {
    let hostile = Hostile::new(Hook::Preprocess);
    let attacks = [
        "wrong-count",
        "no-texts",
        "bad-index",
        "duplicate-index",
        "bad-response-header set-cookie",
        "bad-response-header x-embedgate-x",
        "bad-response-header-crlf",
        "bad-response-value-crlf",
        "zero-dimensions",
        "empty-model",
        "bad-status 302",
        "bad-code",
    ];
    hostile.contains(&attacks, "output").await;
    // A million texts for two: over the memory or the number, as the limit is.
    assert_eq!(hostile.attack("many-small-results").await.status, 503);
    // What is legal and wrong is the client's to read.
    let answer = hostile.attack("huge-dimensions").await;
    assert_eq!(
        (answer.status, answer.message().contains("4294967295")),
        (400, true)
    );
    assert_eq!(
        hostile.attack("model other").await.code(),
        "model_not_found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_reach_the_client() {
    let hostile = Hostile::new(Hook::Authenticate);
    assert_eq!(hostile.attack("ok").await.status, 200);
    let unknown = hostile.attack("none").await;
    assert_eq!((unknown.status, unknown.code()), (401, "invalid_api_key"));
    assert!(unknown.headers.contains_key("www-authenticate"));
    let refused = hostile.attack("reject").await;
    assert_eq!(
        (refused.status, refused.message()),
        (400, "refused, as told")
    );
    let hidden = hostile.attack("reject-5xx").await;
    assert_eq!(hidden.status, 503);
    assert!(
        !hidden.message().contains("not for the caller"),
        "{}",
        hidden.message()
    );

    let hostile = Hostile::new(Hook::Preprocess);
    let answer = hostile.attack("ok").await;
    assert_eq!(answer.headers["x-hostile"], "ok");
    assert_eq!(hostile.attack("reject").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preprocessor_that_may_fail_is_skipped_and_the_answer_says_so() {
    let hostile = Hostile::with(Hook::Preprocess, |config| config.on_error = OnError::Skip);
    for attack in ["trap", "wrong-count"] {
        let answer = hostile.attack(attack).await;
        assert_eq!(answer.status, 200, "{attack}");
        assert_eq!(answer.headers[SKIPPED], "hostile");
    }
}
