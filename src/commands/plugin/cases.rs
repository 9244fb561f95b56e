//! `embedgate plugin test`: asks a plugin what a file says, and compares the answers.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use embedgate_config::{Environment, PluginConfig, Timestamp};
use embedgate_plugin_host::harness::{Cost, Harness, TestHead};
use embedgate_request::{EmbedRequest, Hook, Identity, Input, InputKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Failure;
use crate::args::TestPluginArgs;

/// The content of a file of cases.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cases {
    /// As `[plugins.NAME]`, without its path.
    pub(super) plugin: toml::Table,
    /// Names under which the gateway would have `[auth.limits.NAME]`.
    limits: Vec<String>,
    #[serde(rename = "case")]
    pub(super) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// The time for this case and those after it.
    clock: Option<Timestamp>,
    pub(super) authenticate: Option<HeadCase>,
    /// For `plugin bench`: measures the same head again, too, as the gateway answers it from memory.
    #[serde(default, rename = "remembered")]
    pub(super) is_remembered: bool,
    pub(super) preprocess: Option<RequestCase>,
    /// Each of its members must be in the verdict; where it is missing, the verdict is printed.
    expect: Option<toml::Table>,
}

/// The head of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HeadCase {
    method: String,
    path: String,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    client_ip: IpAddr,
}

impl Default for HeadCase {
    fn default() -> Self {
        Self {
            method: "POST".into(),
            path: "/v1/embeddings".into(),
            query: None,
            headers: BTreeMap::new(),
            client_ip: [127, 0, 0, 1].into(),
        }
    }
}

/// A request for embeddings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RequestCase {
    model: Option<String>,
    inputs: Vec<String>,
    tokens: Vec<Vec<u32>>,
    dimensions: Option<usize>,
    kind: Option<KindCase>,
    user: Option<String>,
    extra: BTreeMap<String, toml::Value>,
    caller: Option<CallerCase>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindCase {
    Query,
    Document,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerCase {
    subject: String,
    tenant: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

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

pub(super) fn read(path: &Path) -> anyhow::Result<Cases> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    toml::from_str(&text).with_context(|| format!("{shown} is no file of cases"))
}

/// The configuration of a plugin under test, checked as the gateway's is; relative paths are relative to the file of cases.
pub(super) fn config(
    file: &Path,
    cases: Option<&Path>,
    table: &toml::Table,
    environment: &Environment,
) -> Result<PluginConfig, Failure> {
    let base = cases.and_then(Path::parent).unwrap_or(Path::new(""));
    let file = std::path::absolute(file).context("the current folder cannot be found")?;
    Ok(PluginConfig::parse(table, &file, base, environment)?)
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

fn require(harness: &Harness, hook: embedgate_request::Hook) -> anyhow::Result<()> {
    if harness.hooks().any(|has| has == hook) {
        return Ok(());
    }
    bail!("the plugin does not {}", hook.name())
}

impl HeadCase {
    pub(super) fn head(&self) -> TestHead {
        let lower = |(name, value): (&String, &String)| (name.to_ascii_lowercase(), value.clone());
        TestHead {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.iter().map(lower).collect(),
            client_ip: Some(self.client_ip),
        }
    }
}

impl RequestCase {
    pub(super) fn request(&self) -> anyhow::Result<EmbedRequest> {
        let texts = self.inputs.iter().cloned().map(Input::Text);
        let tokens = self.tokens.iter().cloned().map(Input::Tokens);
        let inputs: Vec<_> = texts.chain(tokens).collect();
        if inputs.is_empty() || !(self.inputs.is_empty() || self.tokens.is_empty()) {
            bail!("preprocess needs either inputs (texts) or tokens (lists of ids)");
        }
        let extra = self.extra.iter();
        Ok(EmbedRequest {
            model: self.model.clone(),
            kind: match self.kind {
                None => InputKind::Unspecified,
                Some(KindCase::Query) => InputKind::Query,
                Some(KindCase::Document) => InputKind::Document,
            },
            user: self.user.clone(),
            extra: extra
                .map(|(name, value)| (name.clone(), json!(value).to_string()))
                .collect(),
            dimensions: self.dimensions,
            ..EmbedRequest::new(inputs)
        })
    }
}

impl CallerCase {
    fn identity(&self) -> Identity {
        Identity {
            subject: Arc::from(self.subject.as_str()),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
            attributes: self.attributes.clone().into_iter().collect(),
            ..Identity::default()
        }
    }
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
