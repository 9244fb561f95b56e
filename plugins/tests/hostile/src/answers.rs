//! Answers that break the rules of the interface, and a few that keep them.

use std::sync::atomic::{AtomicU32, Ordering};

use embedgate_plugin::{Edits, InputEdit, Lane, Outcome, Principal, Rejection, Replacement};

use crate::Attack;

/// Outlives no call where every call has a fresh instance.
static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn authenticate(attack: Attack<'_>) -> Result<Option<Principal>, Rejection> {
    if let Some(rejection) = rejection(attack) {
        return Err(rejection);
    }
    Ok(principal(attack))
}

pub(crate) fn preprocess(attack: Attack<'_>, texts: &[String]) -> Result<Outcome, Rejection> {
    if let Some(rejection) = rejection(attack) {
        return Err(rejection);
    }
    Ok(edits(attack, texts).map_or(Outcome::Unchanged, Outcome::Edited))
}

/// Larger than any guest's memory limit, and than what may cross the border in a call.
pub(crate) fn huge_text() -> String {
    "x".repeat(64 << 20)
}

fn rejection(attack: Attack<'_>) -> Option<Rejection> {
    let refused = Rejection::bad_request("refused, as told");
    Some(match attack.name {
        "reject" => refused,
        "reject-5xx" => Rejection::unavailable("not for the caller"),
        "bad-status" => Rejection::new(
            attack.argument.parse().unwrap_or(999),
            "bad_status",
            "a status",
        ),
        "bad-header" => refused.with_header(attack.argument, "x"),
        "bad-header-crlf" => refused.with_header("x-a\r\nset-cookie", "x"),
        "bad-value-crlf" => refused.with_header("x-a", "x\r\nset-cookie: a=b"),
        "many-headers" => (0..10_000).fold(refused, |refused, n| {
            let mut refused = refused;
            refused.headers.push(embedgate_plugin::Header {
                name: format!("x-{n}"),
                value: "x".to_owned(),
            });
            refused
        }),
        "long-code" => refused.with_code("c".repeat(65)),
        "empty-code" => refused.with_code(""),
        "bad-code" => refused.with_code("Not A Code\n"),
        "huge-message" => Rejection::bad_request("m".repeat(1 << 20)),
        _ => return None,
    })
}

fn principal(attack: Attack<'_>) -> Option<Principal> {
    let ok = Principal::new("ok");
    Some(match attack.name {
        // `grow` and the floods end in an ordinary answer, so that a test sees whether they were let through.
        "ok"
        | "grow"
        | "log-flood"
        | "log-huge"
        | "log-forge"
        | "kv-spam"
        | "kv-fill"
        | "random-huge"
        | "metrics-undeclared"
        | "metrics-cardinality"
        | "metrics-forge" => ok,
        "ok-valid" => Principal {
            valid_for_ms: u32::MAX,
            ..ok
        },
        "ok-full" => ok
            .with_tenant("tenant")
            .with_scopes(["a", "b"])
            .with_cache_namespace("namespace")
            .with_lane(Lane::Bulk)
            .with_attribute("plan", "gold"),
        "subject" => Principal::new(attack.argument),
        "models" => ok.with_models(attack.argument.split(',').filter(|model| !model.is_empty())),
        "count" => Principal::new((COUNT.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
        "huge-result" => Principal::new(huge_text()),
        "many-small-results" => ok.with_scopes((0..1_000_000).map(|n| n.to_string())),
        "empty-subject" => Principal::new(""),
        "long-subject" => Principal::new("s".repeat(257)),
        "control-subject" => Principal::new("a\r\nb\0c"),
        "huge-attributes" => ok.with_attribute("a", "x".repeat(257)),
        "many-attributes" => (0..17).fold(ok, |principal, n| {
            principal.with_attribute(n.to_string(), "x")
        }),
        "unknown-limit" => ok.with_limit("no-such-limit"),
        "limit" => ok.with_limit(attack.argument),
        _ => return None,
    })
}

fn edits(attack: Attack<'_>, texts: &[String]) -> Option<Edits> {
    let none = Edits::none();
    Some(match attack.name {
        "echo" => Edits::all(texts.to_vec()),
        "upper" => Edits::all(texts.iter().map(|text| text.to_uppercase()).collect()),
        "prefix" => Edits::prefix(attack.argument),
        "some" => Edits::some(vec![replacement(0, attack.argument)]),
        "ok" => none.with_header("x-hostile", "ok"),
        "count" => none.with_header(
            "x-count",
            &(COUNT.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
        ),
        "huge-result" => Edits::prefix(huge_text()),
        "many-small-results" => Edits::all((0..1_000_000).map(|n| n.to_string()).collect()),
        "wrong-count" => Edits::all(
            texts
                .iter()
                .cloned()
                .chain(["one more".to_owned()])
                .collect(),
        ),
        "no-texts" => Edits {
            inputs: InputEdit::All(Vec::new()),
            ..none
        },
        "bad-index" => Edits::some(vec![replacement(u32::MAX, "x")]),
        "duplicate-index" => Edits::some(vec![replacement(0, "x"), replacement(0, "y")]),
        "bad-response-header" => none.with_header(attack.argument, "x"),
        "bad-response-header-crlf" => none.with_header("x-a\r\nset-cookie", "x"),
        "bad-response-value-crlf" => none.with_header("x-a", "x\r\nset-cookie: a=b"),
        "huge-dimensions" => none.with_dimensions(u32::MAX),
        "zero-dimensions" => none.with_dimensions(0),
        "empty-model" => none.with_model(""),
        "model" => none.with_model(attack.argument),
        "empty-text" => Edits::some(vec![replacement(0, "")]),
        _ => return None,
    })
}

fn replacement(index: u32, text: &str) -> Replacement {
    Replacement {
        index,
        text: text.to_owned(),
    }
}
