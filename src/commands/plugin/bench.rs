//! `embedgate plugin bench`: what a plugin costs a request.

use std::{
    io::{self, StdoutLock, Write},
    time::Duration,
};

use embedgate_config::Environment;
use embedgate_plugin_host::harness::{Cost, Harness, LoadMeasurement, TICK, TestHead};
use embedgate_request::{EmbedRequest, Hook, Input, InputKind};

use super::{
    super::Failure,
    cases::{self, Case},
};
use crate::args::plugin::BenchPluginArgs;

/// Headers of the request that is authenticated: those that the plugin sees, and others up to so many.
const N_HEADERS: usize = 12;
/// Before it is measured.
const WARM_UP: Duration = Duration::from_millis(200);

pub(super) fn run(args: &BenchPluginArgs, environment: &Environment) -> Result<(), Failure> {
    let read = args.cases.as_deref().map(cases::read).transpose()?;
    let given = read.unwrap_or_default();
    let cases = args.cases.as_deref();
    let mut config = cases::config(&args.file, cases, &given.plugin, environment)?;
    // As many as are compared everywhere.
    let more = (config.headers.len()..N_HEADERS).map(|i| format!("x-header-{i}"));
    config.headers.extend(more);
    let harness = Harness::load(&config, &[], 0).map_err(Failure::Config)?;
    Ok(report(
        &harness,
        &config.headers,
        &given.cases,
        args.duration.0,
    )?)
}

fn report(
    harness: &Harness,
    headers: &[String],
    cases: &[Case],
    time: Duration,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let lifetime = if harness.is_fresh() {
        "fresh"
    } else {
        "reused"
    };
    writeln!(
        out,
        "loaded in {:.1?}; instances are {lifetime}",
        harness.load_time
    )?;
    for note in &harness.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(
        out,
        "{:<44} {:>8} {:>8} {:>10} {:>10} {:>9} {:>8}",
        "", "p50 µs", "p99 µs", "calls/s", "2 threads", "MiB", "late ms"
    )?;
    let mut rows = Rows { out, harness, time };
    for case in cases {
        if let Some(head) = &case.authenticate {
            let head = head.head();
            rows.row(&case.name, || harness.time_authenticate(&head))?;
        }
        if let Some(head) = case.authenticate.as_ref().filter(|_| case.is_remembered) {
            let (head, name) = (head.head(), format!("{}, remembered", case.name));
            rows.row(&name, || harness.time_remembered(&head))?;
        }
        if let Some(request) = &case.preprocess {
            let request = request.request()?;
            rows.row(&case.name, || async {
                harness.time_preprocess(&mut request.clone()).await
            })?;
        }
    }
    if !cases.is_empty() {
        return Ok(());
    }
    if harness.hooks().any(|hook| hook == Hook::Authenticate) {
        let head = head(headers);
        let name = format!("authenticate, {} headers", headers.len());
        rows.row(&name, || harness.time_authenticate(&head))?;
    }
    if harness.hooks().any(|hook| hook == Hook::Preprocess) {
        for (name, n, bytes) in [
            ("preprocess, 1 text of 500 bytes", 1, 500),
            ("preprocess, 32 texts of 500 bytes", 32, 500),
            ("preprocess, 1 text of 100 KB", 1, 100_000),
        ] {
            rows.row(name, || async move {
                harness.time_preprocess(&mut request(n, bytes)).await
            })?;
        }
    }
    Ok(())
}

/// The table that is printed, a line a call, each as soon as it is measured: so the columns have fixed widths.
struct Rows<'a> {
    out: StdoutLock<'a>,
    harness: &'a Harness,
    /// Length of each measurement.
    time: Duration,
}

impl Rows<'_> {
    /// Measures one call on one thread and on two, and writes a line.
    fn row<F>(&mut self, name: &str, call: impl Fn() -> F + Sync) -> anyhow::Result<()>
    where
        F: Future<Output = (Option<String>, Cost)>,
    {
        let (harness, time) = (self.harness, self.time);
        harness.measure(1, WARM_UP, &call)?;
        let one = harness.measure(1, time, &call)?;
        let two = harness.measure(2, time, &call)?;
        let us =
            |load: &LoadMeasurement, quantile| load.calls.value_at_quantile(quantile) as f64 / 1e3;
        // Nothing else has a turn while short calls follow each other as they do here alone.
        let late = if us(&two, 0.5) < TICK.as_micros() as f64 || two.late.is_empty() {
            "-".into()
        } else {
            format!("{:.1}", two.late.value_at_quantile(0.99) as f64 / 1e6)
        };
        writeln!(
            self.out,
            "{name:<44} {:>8.1} {:>8.1} {:>10.0} {:>10.0} {:>9.2} {late:>8}",
            us(&one, 0.5),
            us(&one, 0.99),
            one.per_second,
            two.per_second,
            one.peak_memory as f64 / f64::from(1 << 20),
        )?;
        if let Some(failure) = one.failure.or(two.failure) {
            writeln!(self.out, "  a call failed: {failure}")?;
        }
        Ok(())
    }
}

fn head(headers: &[String]) -> TestHead {
    let value = |name: &String| match name.as_str() {
        "authorization" => "Bearer 0123456789abcdef0123456789abcdef".to_owned(),
        _ => "a value of some twenty bytes".to_owned(),
    };
    TestHead {
        method: "POST".into(),
        path: "/v1/embeddings".into(),
        query: None,
        headers: headers
            .iter()
            .map(|name| (name.clone(), value(name)))
            .collect(),
        client_ip: Some([127, 0, 0, 1].into()),
    }
}

fn request(n: usize, bytes: usize) -> EmbedRequest {
    // What plugins look for, between words: mixed case, two blanks, a letter that is not ASCII.
    let text = "The  Quick brown fox jumps over the lazy dög. ".repeat(bytes / 46 + 1);
    let text = &text[..text.floor_char_boundary(bytes)];
    EmbedRequest {
        model: Some("model".into()),
        kind: InputKind::Query,
        ..EmbedRequest::new((0..n).map(|_| Input::Text(text.to_owned())).collect())
    }
}
