//! `embedgate plugin test`: asks a plugin what a file says, and compares the answers.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use embedgate_config::{Environment, Timestamp};
use embedgate_plugin_host::harness::{Cost, Harness};
use embedgate_request::Hook;
use serde_json::{Value, json};

use super::{
    super::Failure,
    cases::{CallerCase, Case, Cases, config, read},
};
use crate::args::plugin::TestPluginArgs;

pub(super) fn run(args: &TestPluginArgs, environment: &Environment) -> Result<(), Failure> {
    let cases = read(&args.cases)?;
    let config = config(&args.file, Some(&args.cases), &cases.plugin, environment)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| millis(now.as_millis()));
    let harness = Harness::load(&config, &cases.limits, now).map_err(Failure::Config)?;
    for note in &harness.notes {
        tracing::warn!("{note}");
    }
    if cases.cases.is_empty() {
        let message = format!("{} has no [[case]]", args.cases.display());
        return Err(Failure::Running(anyhow::anyhow!(message)));
    }
    let runtime = super::super::runtime()?;
    let n_failed = runtime.block_on(run_all(&harness, &cases))?;
    if n_failed > 0 {
        return Err(Failure::Running(anyhow::anyhow!(
            "{n_failed} of {} cases failed",
            cases.cases.len()
        )));
    }
    Ok(())
}

async fn run_all(harness: &Harness, cases: &Cases) -> anyhow::Result<usize> {
    let mut out = io::stdout().lock();
    let mut n_failed = 0;
    for case in &cases.cases {
        if let Some(Timestamp(time)) = case.clock {
            let since = time.duration_since(UNIX_EPOCH);
            harness.set_clock(millis(since.context("clock is before 1970")?.as_millis()));
        }
        let (verdict, cost) = ask(harness, case)
            .await
            .with_context(|| format!("case \"{}\"", case.name))?;
        let expected = case.expect.as_ref().map(|table| json!(table));
        let difference = match expected {
            Some(expected) => difference(&expected, &verdict, "expect"),
            None if verdict.get("failure").is_some() => Some("the call failed".to_owned()),
            None => None,
        };
        let mark = if difference.is_some() { "FAILED" } else { "ok" };
        writeln!(out, "{mark:<6} {}  {}", case.name, shown(cost))?;
        if let Some(difference) = difference {
            n_failed += 1;
            writeln!(out, "       {difference}")?;
        }
        if case.expect.is_none() || mark == "FAILED" {
            writeln!(out, "       {verdict}")?;
        }
    }
    Ok(n_failed)
}

fn shown(cost: Cost) -> String {
    let us = cost.time.as_secs_f64() * 1e6;
    let mib = cost.peak_memory as f64 / f64::from(1 << 20);
    format!("{us:.0} µs, {mib:.1} MiB")
}

async fn ask(harness: &Harness, case: &Case) -> anyhow::Result<(Value, Cost)> {
    match (&case.authenticate, &case.preprocess) {
        (Some(head), None) => {
            require(harness, Hook::Authenticate)?;
            Ok(harness.authenticate(&head.head()).await)
        }
        (None, Some(request)) => {
            require(harness, Hook::Preprocess)?;
            let caller = request.caller.as_ref().map(CallerCase::identity);
            let mut request = request.request()?;
            Ok(harness.preprocess(&mut request, caller.as_ref()).await)
        }
        _ => bail!("a case has one of authenticate and preprocess"),
    }
}

fn require(harness: &Harness, hook: Hook) -> anyhow::Result<()> {
    if harness.hooks().any(|has| has == hook) {
        return Ok(());
    }
    bail!("the plugin does not {}", hook.name())
}

/// Finds a part of `expected` that is not in `got`.
fn difference(expected: &Value, got: &Value, at: &str) -> Option<String> {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            expected.iter().find_map(|(name, value)| {
                let at = format!("{at}.{name}");
                match got.get(name) {
                    Some(got) => difference(value, got, &at),
                    None => Some(format!("{at} is missing, expected {value}")),
                }
            })
        }
        _ if expected == got => None,
        _ => Some(format!("{at} is {got}, expected {expected}")),
    }
}

fn millis(ms: u128) -> u64 {
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_must_be_there_and_more_may() {
        let got = json!({"principal": {"subject": "a", "scopes": ["x"]}});
        let same = |expected| difference(&expected, &got, "expect");
        assert_eq!(same(json!({"principal": {"subject": "a"}})), None);
        assert_eq!(
            same(json!({"principal": {"subject": "b"}})).unwrap(),
            "expect.principal.subject is \"a\", expected \"b\""
        );
        assert_eq!(
            same(json!({"rejection": {"status": 401}})).unwrap(),
            "expect.rejection is missing, expected {\"status\":401}"
        );
        assert!(same(json!({"principal": {"scopes": []}})).is_some());
    }
}
