//! Attacks through the host's functions that say what they got.

use std::time::Duration;

use embedgate_plugin::http::Request;
use embedgate_plugin::{crypto, http, kv, metrics, secrets};

use crate::Attack;

/// Runs the attack, if it is one of these, and returns what came of it.
pub(crate) fn run(attack: Attack<'_>) -> Option<String> {
    match attack.name {
        "secrets-get" => Some(secrets::get(attack.argument).unwrap_or_else(|| "none".to_owned())),
        "kv-get" => {
            Some(kv::get(attack.argument).map_or("none".to_owned(), |value| format!("{value:?}")))
        }
        "kv-set" => Some(format!("{:?}", kv::set(attack.argument, b"set", None))),
        "kv-add" => Some(format!(
            "{:?}",
            kv::add(attack.argument, 1, Some(Duration::from_secs(60)))
        )),
        "kv-take" => Some(format!(
            "{:?}",
            kv::take(
                attack.argument,
                1,
                kv::Rate {
                    per_minute: 60,
                    burst: 2
                }
            )
        )),
        "kv-huge-key" => Some(format!("{:?}", kv::set(&"k".repeat(1025), b"", None))),
        "kv-huge-value" => Some(format!("{:?}", kv::set("k", &vec![0; 65_537], None))),
        "metrics-undeclared" => {
            metrics::add("undeclared", &[], 1);
            None
        }
        "metrics-cardinality" => {
            add_many_label_sets();
            None
        }
        "metrics-forge" => {
            metrics::add("lookups", &[("a\"} 1\nforged{b", "\"\n\\")], 1);
            metrics::observe("lookups", &[], f64::NAN);
            None
        }
        "http-any" => Some(answer(Request::get(attack.argument).send())),
        "http-slow" => Some(answer(
            Request::get(attack.argument)
                .with_timeout(Duration::from_secs(3600))
                .send(),
        )),
        "http-many" => Some(ask_until_refused(attack.argument)),
        "http-bad-header" => {
            let request = Request::get(attack.argument);
            Some(answer(
                request
                    .with_header("x-a\r\nx-b", "c\r\nd")
                    .with_header("host", "elsewhere")
                    .send(),
            ))
        }
        "jwt" => Some(jwt(attack.argument)),
        _ => None,
    }
}

/// More than the 100 label sets that the gateway keeps.
fn add_many_label_sets() {
    for n in 0..10_000 {
        metrics::add("lookups", &[("n", &n.to_string())], 1);
    }
}

fn answer(answer: Result<http::Response, http::HttpError>) -> String {
    match answer {
        Ok(response) => {
            let location = response.header("location").unwrap_or_default();
            format!(
                "{} {location} {}",
                response.status,
                String::from_utf8_lossy(&response.body)
            )
        }
        Err(error) => format!("{error:?}"),
    }
}

fn ask_until_refused(url: &str) -> String {
    for n in 0..1000 {
        if let Err(error) = Request::get(url).send() {
            return format!("{n} {error:?}");
        }
    }
    "1000".to_owned()
}

/// The issuer is `main`, unless the token has another's name and a comma before it.
fn jwt(text: &str) -> String {
    let (issuer, token) = text.split_once(',').unwrap_or(("main", text));
    match crypto::verify_jwt(token, issuer) {
        Ok(claims) => claims,
        Err(error) => format!("{error:?}"),
    }
}
