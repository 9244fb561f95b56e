//! `embedgate embed`: lines of text in, what a model gives of each out, without a server.

mod output;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use embedgate_config::{CacheConfig, Config, Environment, LogLevel, ModelConfig};
use embedgate_core::Outputs;
use embedgate_metrics::Metrics;
use embedgate_request::{Begun, EmbedRequest, Embedding, Input, Lane, Principal, RequestContext};

use self::output::Output;
use super::{Failure, runtime, start_log};
use crate::{
    args::{EmbedArgs, OutputArg},
    cache::EmbeddingCache,
    embed::{Embedder, Preprocessed},
    model::{Entry, ModelRegistry, load, surroundings::Surroundings},
};

/// Lines that are embedded together: enough to fill batches of like length.
const LINES: usize = 256;
/// Nobody waits at the other end of a pipe with a clock.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn run(
    config: Option<&Path>,
    args: &EmbedArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let config = Config::load(config, environment)?;
    start_log(LogLevel::Warn);
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let (embedder, lines_at_once) = embedder(&config, args, environment)?;
    let lines: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&args.file).with_context(|| args.file.display().to_string())?;
        Box::new(BufReader::new(file))
    };
    let outputs = outputs(args);
    let mut output = Output::new(args, outputs)?;
    let mut lines = lines.lines().enumerate();
    loop {
        let mut texts = Vec::new();
        for (i, line) in lines.by_ref().take(lines_at_once) {
            texts.push(line.with_context(|| format!("line {}", i + 1))?);
        }
        if texts.is_empty() {
            break;
        }
        output.write(runtime.block_on(embed_lines(&embedder, args, texts))?)?;
    }
    output.finish()?;
    embedder.stop();
    Ok(())
}

fn outputs(args: &EmbedArgs) -> Outputs {
    let asks = |output| args.outputs.contains(&output);
    Outputs {
        dense: asks(OutputArg::Dense),
        sparse: asks(OutputArg::Sparse),
        multi_vector: asks(OutputArg::Colbert),
        ..Outputs::default()
    }
}

/// Loads just the model that is asked for; also tells how many lines fit into its queue.
fn embedder(
    config: &Config,
    args: &EmbedArgs,
    environment: &Environment,
) -> Result<(Embedder, usize), Failure> {
    let surroundings = Surroundings::new(config, environment);
    let metrics = Metrics::new();
    let asked = args.model.as_deref().or(config.default_model());
    let has_name = |(name, model): &(&String, &ModelConfig)| {
        asked
            .is_some_and(|asked| *name == asked || model.aliases.iter().any(|alias| alias == asked))
    };
    let (name, model) = config.models.iter().find(has_name).ok_or_else(|| {
        let names: Vec<_> = config.models.keys().map(String::as_str).collect();
        let asked = asked
            .map(|name| format!("there is no model \"{name}\""))
            .unwrap_or("no model is named".into());
        Failure::Config(anyhow::anyhow!(
            "{asked}: choose one with --model: {}",
            names.join(", ")
        ))
    })?;
    let model = load::load(name, model, &surroundings, &metrics)
        .map_err(|e| anyhow::anyhow!("model {name}: {e}"))?;
    let lines_at_once = model.batcher().most_at_once(Lane::Bulk).min(LINES);
    let entries = vec![(Entry::Loaded(Arc::new(model)), Vec::new())];
    let registry = ModelRegistry::new(entries, Some(name));
    Ok((
        Embedder::new(
            registry,
            EmbeddingCache::new(&CacheConfig::default(), None, &metrics),
            LINES,
        ),
        lines_at_once,
    ))
}

async fn embed_lines(
    embedder: &Embedder,
    args: &EmbedArgs,
    texts: Vec<String>,
) -> anyhow::Result<Vec<Embedding>> {
    let request = EmbedRequest {
        outputs: outputs(args),
        dimensions: args.dimensions.filter(|n| *n > 0),
        ..EmbedRequest::new(texts.into_iter().map(Input::Text).collect())
    };
    let deadline = Instant::now() + NO_DEADLINE;
    let ctx = RequestContext {
        id: "embed".into(),
        principal: Principal::Anonymous,
        deadline,
        lane: Some(Lane::Bulk),
        spent: std::sync::Arc::default(),
        // Nobody else waits, and nobody comes back later.
        begun: std::sync::Arc::new(Begun::already()),
    };
    let answer = embedder
        .embed(&ctx, Preprocessed::unchanged(request))
        .await?;
    Ok(answer.embeddings)
}
