//! `embedgate doctor`: sends a running server what a client of it sends, and says what the client would say.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Instant,
};

use anyhow::Context;
use hyper::Uri;
use serde_json::{Value, json};

use super::{Failure, runtime};
use crate::{
    args::{DoctorCommand, RagflowArgs},
    bench::{Connection, Target},
    config::Environment,
};

/// A request of one of `RAGFlow`'s providers, and what it makes of the answer.
struct Probe {
    /// The providers that send it.
    providers: &'static str,
    path: &'static str,
    /// Some providers never send a key.
    with_key: bool,
    body: Value,
    /// What it finds, or what is wrong with it.
    read: fn(&Value) -> Result<String, String>,
    /// What to do where it gets no further than the door.
    way_in: &'static str,
}

pub(super) fn run(command: &DoctorCommand, environment: &Environment) -> Result<(), Failure> {
    let DoctorCommand::Ragflow(args) = command;
    let runtime = runtime()?;
    let (report, is_well) = runtime.block_on(ragflow(args, environment))?;
    let told = io::stdout().write_all(report.as_bytes());
    told.context("standard output")?;
    if is_well {
        return Ok(());
    }
    Err(anyhow::anyhow!("RAGFlow would refuse what is marked FAIL").into())
}

async fn ragflow(args: &RagflowArgs, environment: &Environment) -> anyhow::Result<(String, bool)> {
    let key = args.key.clone();
    let key = key.or_else(|| environment.get("EMBEDGATE_KEY").map(str::to_owned));
    let mut probes = embedding(&args.model);
    if let Some(model) = &args.rerank_model {
        probes.extend(reranking(model));
    }
    let (mut report, mut is_well) = (String::new(), true);
    for probe in probes {
        let (providers, path) = (probe.providers, probe.path);
        let (word, said) = match ask(&probe, &args.url, key.as_deref()).await {
            Ok(found) => ("ok  ", found),
            Err(problem) => {
                is_well = false;
                ("FAIL", problem)
            }
        };
        writeln!(report, "{word}  {providers}: POST {path}: {said}")?;
    }
    if args.rerank_model.is_none() {
        writeln!(
            report,
            "      reranking was not tried: name a model with --rerank-model"
        )?;
    }
    Ok((report, is_well))
}

/// Sends one request, on a connection of its own as `RAGFlow` does.
async fn ask(probe: &Probe, url: &Target, key: Option<&str>) -> Result<String, String> {
    let mut parts = url.url.clone().into_parts();
    parts.path_and_query = probe.path.parse().ok();
    let target = Target {
        name: url.name.clone(),
        url: Uri::from_parts(parts).map_err(|e| e.to_string())?,
    };
    // Its clients send any word where no key is asked for.
    let key = probe.with_key.then(|| key.unwrap_or("empty"));
    let started = Instant::now();
    let body = probe.body.to_string().into();
    let reply = Connection::new(&target, key, None, TIMEOUT)
        .post(body)
        .await;
    let reply = reply.map_err(|e| format!("{e:#}"))?;
    let took = started.elapsed().as_millis();
    let text = String::from_utf8_lossy(&reply.bytes);
    if reply.status != 200 {
        let shown: String = text.chars().take(300).collect();
        let hint = match reply.status {
            401 | 403 => probe.way_in,
            404 => "; is there another server at this URL, or no such model?",
            _ => "",
        };
        return Err(format!("{} {shown}{hint}", reply.status));
    }
    let answer: Value =
        serde_json::from_str(&text).map_err(|e| format!("the answer is no JSON: {e}"))?;
    let found = (probe.read)(&answer)?;
    Ok(format!("{found}, {took} ms"))
}

/// Adding a model calls it once, within this time.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
const NEEDS_KEY: &str = "; give the key with --key, or in EMBEDGATE_KEY";
const NEEDS_OPEN: &str =
    "; this provider never sends a key: set auth.open_routes = [\"tei\", \"rerank\"]";

fn embedding(model: &str) -> Vec<Probe> {
    let texts = ["Test if the model works.", "测试"];
    vec![
        Probe {
            providers: "OpenAI-API-Compatible, VLLM",
            path: "/v1/embeddings",
            with_key: true,
            body: json!({"input": texts, "model": model, "encoding_format": "float", "drop_params": true}),
            read: floats,
            way_in: NEEDS_KEY,
        },
        Probe {
            providers: "Xinference, LocalAI, LM-Studio, GPUStack",
            path: "/v1/embeddings",
            with_key: true,
            body: json!({"input": texts, "model": model, "encoding_format": "base64"}),
            read: base64,
            way_in: NEEDS_KEY,
        },
        Probe {
            providers: "HuggingFace, Builtin",
            path: "/embed",
            with_key: false,
            body: json!({"inputs": texts, "normalize": true, "truncate": true}),
            read: bare,
            way_in: NEEDS_OPEN,
        },
    ]
}

fn reranking(model: &str) -> Vec<Probe> {
    let documents = ["RAGFlow reads documents.", "Rice is cooked in water."];
    let query = "What reads documents?";
    vec![
        Probe {
            providers: "OpenAI-API-Compatible, VLLM, rerank",
            path: "/v1/rerank",
            with_key: true,
            body: json!({"model": model, "query": query, "documents": documents, "top_n": 2}),
            read: ranks,
            way_in: NEEDS_KEY,
        },
        Probe {
            providers: "Xinference, LocalAI, rerank",
            path: "/v1/rerank",
            with_key: true,
            body: json!({"model": model, "query": query, "documents": documents,
                "return_documents": "true", "return_len": "true"}),
            read: ranks,
            way_in: NEEDS_KEY,
        },
        Probe {
            providers: "HuggingFace, rerank",
            path: "/rerank",
            with_key: false,
            body: json!({"query": query, "texts": documents, "raw_scores": false, "truncate": true}),
            read: bare_ranks,
            way_in: NEEDS_OPEN,
        },
    ]
}

fn floats(answer: &Value) -> Result<String, String> {
    let width = |item: &Value| item["embedding"].as_array().map(Vec::len);
    of_openai(answer, width)
}

fn base64(answer: &Value) -> Result<String, String> {
    let width = |item: &Value| {
        let text = item["embedding"].as_str()?;
        let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
        bytes.len().is_multiple_of(4).then_some(bytes.len() / 4)
    };
    of_openai(answer, width)
}

/// Vectors are sorted by their index, and the tokens are billed.
fn of_openai(answer: &Value, width: impl Fn(&Value) -> Option<usize>) -> Result<String, String> {
    let items = answer["data"].as_array().ok_or("it has no list \"data\"")?;
    let widths: Option<Vec<usize>> = items.iter().map(width).collect();
    let widths = widths.ok_or("an item of \"data\" has no embedding of the form asked for")?;
    let indices: Vec<Option<u64>> = items.iter().map(|item| item["index"].as_u64()).collect();
    if indices != [Some(0), Some(1)] {
        return Err(format!(
            "2 texts were sent, the items have the indices {indices:?}"
        ));
    }
    let tokens = answer["usage"]["total_tokens"].as_u64().unwrap_or(0);
    if tokens == 0 {
        return Err("usage.total_tokens is missing or 0".into());
    }
    Ok(format!("{} dimensions, {tokens} tokens", same(&widths)?))
}

fn bare(answer: &Value) -> Result<String, String> {
    let rows = answer.as_array().ok_or("it is no list of vectors")?;
    let widths: Option<Vec<usize>> = rows.iter().map(|row| Some(row.as_array()?.len())).collect();
    let widths = widths.ok_or("it is no list of vectors")?;
    if widths.len() != 2 {
        return Err(format!("2 texts were sent, {} vectors came", widths.len()));
    }
    Ok(format!("{} dimensions", same(&widths)?))
}

fn same(widths: &[usize]) -> Result<usize, String> {
    match widths {
        [first, rest @ ..] if *first > 0 && rest.iter().all(|width| width == first) => Ok(*first),
        _ => Err(format!("the vectors have {widths:?} dimensions")),
    }
}

fn ranks(answer: &Value) -> Result<String, String> {
    let lines = answer["results"].as_array();
    let lines = lines.ok_or("it has no list \"results\"")?;
    let tokens = answer["usage"]["total_tokens"].as_u64().unwrap_or(0);
    if tokens == 0 {
        return Err("usage.total_tokens is missing or 0".into());
    }
    let found = ranked(lines, "relevance_score")?;
    Ok(format!("{found}, {tokens} tokens"))
}

fn bare_ranks(answer: &Value) -> Result<String, String> {
    ranked(answer.as_array().ok_or("it is no list of scores")?, "score")
}

fn ranked(lines: &[Value], score: &str) -> Result<String, String> {
    let mut indices: Vec<Option<u64>> = lines.iter().map(|line| line["index"].as_u64()).collect();
    indices.sort_unstable();
    if indices != [Some(0), Some(1)] {
        return Err(format!(
            "2 documents were sent, the results have the indices {indices:?}"
        ));
    }
    let scores: Option<Vec<f64>> = lines.iter().map(|line| line[score].as_f64()).collect();
    match scores {
        Some(scores) => Ok(format!("scores {scores:.3?}")),
        None => Err(format!("a result has no {score}")),
    }
}
