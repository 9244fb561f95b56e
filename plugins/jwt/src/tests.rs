use embedgate_plugin::test::{self, Issuer, TestHost, Value, json};

use super::*;

fn host(settings: &Value) -> TestHost {
    let host = TestHost::new()
        .with_issuer(Issuer::new("main"))
        .with_issuer(Issuer::new("other"));
    host.init::<Jwt>(settings).expect("settings are right");
    host
}

fn both() -> Value {
    json!({ "issuers": ["main", "other"] })
}

/// Seconds after the test host's clock.
fn in_seconds(seconds: u64) -> u64 {
    clock::unix_ms() / 1000 + seconds
}

fn authenticate(host: &TestHost, token: &str) -> Result<Option<Principal>, Rejection> {
    host.authenticate::<Jwt>(test::head().with_header("authorization", &format!("Bearer {token}")))
}

#[test]
fn a_token_of_any_issuer_becomes_a_principal() {
    let host = host(&both());
    for issuer in ["main", "other"] {
        let token = Issuer::new(issuer)
            .sign(&json!({ "sub": "ali", "scope": "a b", "exp": in_seconds(5) }));
        let expected = Principal::new("ali")
            .with_scopes(["a", "b"])
            .with_valid_for(Duration::from_secs(5));
        assert_eq!(authenticate(&host, &token), Ok(Some(expected)));
    }
}

#[test]
fn a_principal_is_not_remembered_longer_than_the_setting_says() {
    let host = host(&json!({ "issuers": ["main"], "max_valid_for_ms": 1000 }));
    let token = Issuer::new("main").sign(&json!({ "sub": "ali", "exp": in_seconds(3600) }));
    assert_eq!(
        authenticate(&host, &token)
            .expect("no rejection")
            .expect("a principal")
            .valid_for_ms,
        1000
    );
}

#[test]
fn claims_are_where_the_settings_say() {
    let host = host(&json!({
        "issuers": ["main"], "subject_claim": "client_id", "tenant_claim": "https://example.com/tenant",
        "scopes_claim": "realm_access.roles", "models_claim": "models",
    }));
    let token = Issuer::new("main").sign(&json!({
        "client_id": "rag", "https://example.com/tenant": "t", "realm_access": { "roles": ["embed"] },
        "models": ["m", "n-*"], "exp": in_seconds(60),
    }));
    let expected = Principal::new("rag")
        .with_tenant("t")
        .with_scopes(["embed"])
        .with_models(["m", "n-*"])
        .with_valid_for(Duration::from_secs(60));
    assert_eq!(authenticate(&host, &token), Ok(Some(expected)));
}

#[test]
fn a_token_without_the_claim_of_models_opens_none() {
    let host = host(&json!({ "issuers": ["main"], "models_claim": "models" }));
    let token = Issuer::new("main").sign(&json!({ "sub": "ali", "exp": in_seconds(60) }));
    let principal = authenticate(&host, &token)
        .expect("no rejection")
        .expect("a principal");
    assert_eq!(principal.allowed_models, Some(Vec::new()));
}

#[test]
fn a_token_without_a_required_scope_is_forbidden() {
    let host = host(&json!({ "issuers": ["main"], "required_scopes": ["embed", "read"] }));
    let sign = |scope| {
        Issuer::new("main").sign(&json!({ "sub": "ali", "scope": scope, "exp": in_seconds(60) }))
    };
    assert!(authenticate(&host, &sign("read x embed")).is_ok());
    let rejection = authenticate(&host, &sign("embed reader")).expect_err("no scope read");
    assert_eq!(
        (rejection.status, rejection.code.as_str()),
        (403, "insufficient_scope")
    );
    assert_eq!(
        rejection.header("www-authenticate"),
        Some("Bearer error=\"insufficient_scope\"")
    );
}

#[test]
fn what_is_no_token_of_a_listed_issuer_is_left_to_others() {
    let host = host(&json!({ "issuers": ["main"] }));
    let elsewhere = Issuer {
        issuer: "https://elsewhere.example.com".to_owned(),
        ..Issuer::new("main")
    };
    let foreign = elsewhere.sign(&json!({ "sub": "ali", "exp": in_seconds(60) }));
    for token in [
        "sk-123",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9.e30",
        "eyJ.é.x",
        "eyJ..",
        &foreign,
    ] {
        assert_eq!(authenticate(&host, token), Ok(None), "{token}");
    }
    assert_eq!(host.authenticate::<Jwt>(test::head()), Ok(None));
}

#[test]
fn a_token_that_does_not_hold_is_refused_with_the_reason() {
    let host = host(&both());
    let main = Issuer::new("main");
    let refused = |token: &str, reason: &str| {
        let rejection = authenticate(&host, token).expect_err(reason);
        assert_eq!(
            (rejection.status, rejection.code.as_str()),
            (401, "invalid_token")
        );
        assert_eq!(
            rejection.message,
            format!("the token is not accepted: {reason}")
        );
    };
    let later = in_seconds(60);
    refused(
        &main.sign(&json!({ "sub": "a", "exp": in_seconds(0) })),
        "it is expired",
    );
    refused(
        &main.sign(&json!({ "sub": "a", "exp": later, "nbf": later })),
        "it is not valid yet",
    );
    refused(
        &main.sign(&json!({ "sub": "a", "exp": later, "aud": "x" })),
        "it is for another audience",
    );
    refused(
        &(main.sign(&json!({ "sub": "a", "exp": later })) + "x"),
        "its signature is wrong",
    );
    let unknown = Issuer::new("third").sign(&json!({ "sub": "a", "exp": later }));
    refused(&unknown, "it is signed with a key that is not known");
    refused(
        &main.sign(&json!({ "exp": later })),
        "its claim sub is no subject",
    );
    refused(
        &main.sign(&json!({ "sub": "a\nb", "exp": later })),
        "its claim sub is no subject",
    );
}

#[test]
fn settings_that_name_no_granted_issuer_are_refused() {
    let host = TestHost::new().with_issuer(Issuer::new("main"));
    let error = |settings: Value| host.init::<Jwt>(&settings).expect_err("wrong settings");
    assert_eq!(
        error(json!({ "issuers": ["main", "x"] })),
        "settings: issuer \"x\" is not in the grant crypto.issuers"
    );
    assert_eq!(
        error(json!({ "issuers": [] })),
        "settings: issuers must name at least one issuer of the grant crypto"
    );
}
