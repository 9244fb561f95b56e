//! `embedgate doctor`: sends a running server what a client of it sends, and says what the client would say.

#[cfg(feature = "cuda")]
pub(super) mod card;

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Instant,
};

use anyhow::Context;
use embedgate_config::Environment;
use embedgate_tools::bench::{Connection, Target};
use hyper::Uri;
use serde_json::{Value, json};

use super::{Failure, runtime};
use crate::args::tools::{DoctorCommand, RagflowArgs};

/// A request of one of `RAGFlow`'s providers, and what it makes of the answer.
struct Probe {
    /// The providers that send it.
    providers: &'static str,
    path: &'static str,
    key: Key,
    body: Value,
    /// The reader of the answer: it returns the finding, or the problem.
    read: fn(&Value) -> Result<String, String>,
}

/// The key that a provider sends.
#[derive(Clone, Copy)]
enum Key {
    /// The one typed into its dialog.
    Typed,
    /// One of its own, whatever was typed.
    Own(&'static str),
    Never,
}

pub(super) fn run(command: &DoctorCommand, environment: &Environment) -> Result<(), Failure> {
    let args = match command {
        DoctorCommand::Ragflow(args) => args,
        #[cfg(feature = "cuda")]
        DoctorCommand::Cuda(args) => return card::run(args),
    };
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
    if let Some(provider) = &args.provider {
        let all: Vec<&str> = probes.iter().map(|probe| probe.providers).collect();
        let all = all.join(", ");
        let is_it = |probe: &Probe| {
            let mut names = probe.providers.split(", ");
            names.any(|name| name.eq_ignore_ascii_case(provider))
        };
        probes.retain(is_it);
        anyhow::ensure!(
            !probes.is_empty(),
            "--provider: RAGFlow has no {provider} here, expected one of: {all}"
        );
    }
    let (mut report, mut is_well) = (String::new(), true);
    for probe in probes {
        let (providers, path) = (probe.providers, probe.path);
        let (word, said) = match ask(&probe, &args.url, key.as_deref()).await {
            Ok(found) if matches!(probe.key, Key::Never) => {
                let by = "; by the server's default model, since this provider names none";
                ("ok  ", format!("{found}{by}"))
            }
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
    let key = match probe.key {
        // The dialog wants some word where no key is asked for.
        Key::Typed => Some(key.unwrap_or("empty")),
        Key::Own(own) => Some(own),
        Key::Never => None,
    };
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
            401 | 403 => probe.way_in(),
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

impl Probe {
    /// Returns the advice for a probe that the gateway does not let in.
    fn way_in(&self) -> &'static str {
        match (self.key, self.path) {
            (Key::Typed, _) => "; give the key with --key, or in EMBEDGATE_KEY",
            (Key::Own(_), _) => {
                "; this provider sends a key of its own: set auth.open_routes = [\"embeddings\"]"
            }
            (Key::Never, "/rerank") => {
                "; this provider never sends a key: set auth.open_routes = [\"tei\", \"rerank\"]"
            }
            (Key::Never, _) => {
                "; this provider never sends a key: set auth.open_routes = [\"tei\"]"
            }
        }
    }
}

/// Texts of one request of an ingest.
const N_TEXTS: usize = 16;

fn texts() -> Vec<String> {
    // An empty chunk comes as this word.
    let known = ["Test if the model works.", "测试", "None"].map(str::to_owned);
    let chunks = (known.len()..N_TEXTS).map(|i| format!("Chunk {i} of a document."));
    known.into_iter().chain(chunks).collect()
}

/// Source: RAGFlow 0.26.4 and 0.27.0, `rag/llm/embedding_model.py`.
fn embedding(model: &str) -> Vec<Probe> {
    let openai = |providers, key, more: Value, read| {
        let mut body = json!({"input": texts(), "model": model});
        body.as_object_mut()
            .into_iter()
            .for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        Probe {
            providers,
            path: "/v1/embeddings",
            key,
            body,
            read,
        }
    };
    let as_floats = json!({"encoding_format": "float", "drop_params": true});
    // What the client adds where no form is named.
    let as_base64 = || json!({"encoding_format": "base64"});
    vec![
        openai(
            "OpenAI-API-Compatible, VLLM, GPUStack",
            Key::Typed,
            as_floats,
            floats as fn(&Value) -> _,
        ),
        openai("Xinference", Key::Typed, as_base64(), base64),
        openai("LocalAI", Key::Own("empty"), as_base64(), base64),
        openai("LM-Studio", Key::Own("lm-studio"), as_base64(), base64),
        Probe {
            providers: "Ollama",
            path: "/api/embed",
            key: Key::Typed,
            body: json!({"model": model, "input": texts(), "options": {"use_mmap": true}, "keep_alive": -1}),
            read: of_ollama,
        },
        Probe {
            providers: "HuggingFace, Builtin",
            path: "/embed",
            key: Key::Never,
            body: json!({"inputs": texts(), "normalize": true, "truncate": true}),
            read: bare,
        },
    ]
}

/// Source: RAGFlow 0.26.4 and 0.27.0, `rag/llm/rerank_model.py`.
fn reranking(model: &str) -> Vec<Probe> {
    let documents = ["RAGFlow reads documents.", "Rice is cooked in water."];
    let query = "What reads documents?";
    let plain = json!({"model": model, "query": query, "documents": documents, "top_n": 2});
    let by_plain = |providers, path| Probe {
        providers,
        path,
        key: Key::Typed,
        body: plain.clone(),
        read: ranks,
    };
    vec![
        by_plain("OpenAI-API-Compatible, rerank", "/v1/rerank"),
        by_plain("VLLM, GPUStack, rerank", "/v1/v1/rerank"),
        by_plain("LocalAI, rerank", "/rerank"),
        Probe {
            providers: "Xinference, rerank",
            path: "/v1/rerank",
            key: Key::Typed,
            body: json!({"model": model, "query": query, "documents": documents,
                "return_documents": "true", "return_len": "true"}),
            read: ranks,
        },
        Probe {
            providers: "HuggingFace, rerank",
            path: "/rerank",
            key: Key::Never,
            body: json!({"query": query, "texts": documents, "raw_scores": false, "truncate": true}),
            read: bare_ranks,
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
    if !indices.iter().copied().eq((0..N_TEXTS as u64).map(Some)) {
        return Err(format!(
            "{N_TEXTS} texts were sent, the items have the indices {indices:?}"
        ));
    }
    Ok(format!("{} dimensions, {}", same(&widths)?, usage(answer)))
}

/// The tokens that an answer says. Releases of RAGFlow that are newer count tokens themselves where it says none.
fn usage(answer: &Value) -> String {
    match answer["usage"]["total_tokens"].as_u64() {
        Some(n) if n > 0 => format!("{n} tokens"),
        _ => "and no usage.total_tokens, which older releases of RAGFlow need".into(),
    }
}

fn of_ollama(answer: &Value) -> Result<String, String> {
    let tokens = answer["prompt_eval_count"].as_u64().unwrap_or(0);
    if tokens == 0 {
        return Err("prompt_eval_count is missing or 0".into());
    }
    let found = bare(&answer["embeddings"])?;
    Ok(format!("{found}, {tokens} tokens"))
}

fn bare(answer: &Value) -> Result<String, String> {
    let rows = answer.as_array().ok_or("it is no list of vectors")?;
    let widths: Option<Vec<usize>> = rows.iter().map(|row| Some(row.as_array()?.len())).collect();
    let widths = widths.ok_or("it is no list of vectors")?;
    if widths.len() != N_TEXTS {
        let n = widths.len();
        return Err(format!("{N_TEXTS} texts were sent, {n} vectors came"));
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
    let found = ranked(lines, "relevance_score")?;
    Ok(format!("{found}, {}", usage(answer)))
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
