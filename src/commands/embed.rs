//! `embedgate embed`: lines of text in, what a model gives of each out, without a server.

mod input;
mod output;
mod parts;
mod progress;

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use embedgate_config::{
    ByteSize, CacheConfig, Config, Environment, LogLevel, ModelConfig, UnknownModel,
};
use embedgate_core::Outputs;
use embedgate_metrics::Metrics;
use embedgate_request::{
    Begun, EmbedRequest, Embedding, Error, ErrorKind, Input::Text, Lane, Principal, RequestContext,
};
use serde_json::Value;

use self::{
    input::{Input, Row},
    output::Output,
    parts::Run,
    progress::Progress,
};
use super::{Failure, runtime, start_log};
use crate::{
    args::{EmbedArgs, OutputArg},
    cache::EmbeddingCache,
    embed::{Embedder, Preprocessed},
    model::{
        About, Entry, ModelRegistry, State,
        load::{self, Loading},
        surroundings::Surroundings,
    },
};

/// Rows that are embedded together: enough to fill batches of like length.
const LINES: usize = 256;
/// Chunks of rows in flight.
const IN_FLIGHT: usize = 3;
/// Bad rows that are logged one by one.
const MOST_SAID: u64 = 20;
/// Equal texts are computed once where they are not far apart: what takes more would grow with the input.
const CACHE: ByteSize = ByteSize::mib(32);
/// No deadline: no client waits.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn run(
    config: Option<&Path>,
    args: &EmbedArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let config = Config::load_for_a_command(config, environment)?;
    start_log(LogLevel::Warn);
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let mut input = Input::open(args)?;
    let (embedder, most_at_once) = embedder(&config, args, environment)?;
    let model = embedder.registry().resolve(None);
    let model = model.map_err(anyhow::Error::new)?;
    let model = Arc::clone(model);
    let run = |format| Run::of(args, format, &model);
    let mut output = Output::new(args, outputs(args), run)?;
    let model = Arc::new(Asked {
        embedder,
        most_at_once,
        outputs: outputs(args),
        dimensions: args.dimensions.filter(|n| *n > 0),
    });
    // What is wrong with the options is wrong with every row.
    let tried = runtime.block_on(Arc::clone(&model).embed_together(vec![String::new()]));
    tried.map_err(anyhow::Error::new)?;
    let done = runtime.block_on(embed_all(&model, &mut input, &mut output, args.skips()));
    match done {
        Ok(end) => output.finish(end)?,
        Err(Stopped { error, end }) => {
            if let Err(more) = output.keep(end) {
                tracing::warn!("the last part cannot be kept: {more:#}");
            }
            return Err(error.into());
        }
    }
    if let Some(model) = Arc::into_inner(model) {
        model.embedder.stop();
    }
    Ok(())
}

/// The reason why a run ended, and the rows of the input that were written.
struct Stopped {
    error: anyhow::Error,
    end: u64,
}

/// Rows that were read together.
struct Chunk {
    /// The number of each row, from 1, and its id.
    ids: Vec<(u64, Option<Value>)>,
    texts: Vec<String>,
    /// Rows of the input up to the last of them.
    end: u64,
}

/// Reads rows, and leaves the bad ones out, or ends at the first.
struct Reader<'a> {
    input: &'a mut Input,
    bad: Bad,
    /// The reason why no more rows are read.
    failed: Option<anyhow::Error>,
    ids_are_numbers: Option<bool>,
}

impl Reader<'_> {
    /// Passes rows that an earlier run did.
    fn skip(&mut self, n_rows: u64) -> anyhow::Result<()> {
        while self.input.n_read() < n_rows {
            if self.input.next()?.is_none() {
                bail!("the input has fewer rows than the parts that are done");
            }
        }
        Ok(())
    }

    /// Ids of one file are of one kind, since a column is: that of the first.
    fn check_id(&mut self, id: Option<&Value>) -> Result<(), &'static str> {
        let Some(is_number) = id.map(Value::is_i64) else {
            return Ok(());
        };
        match *self.ids_are_numbers.get_or_insert(is_number) {
            true if !is_number => Err("has a text for an id, and the first row has a whole number"),
            false if is_number => Err("has a whole number for an id, and the first row has a text"),
            _ => Ok(()),
        }
    }

    /// The next rows; none at the end, and after a failure.
    fn next(&mut self, most: usize) -> Option<Chunk> {
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        let mut end = self.input.n_read();
        while self.failed.is_none() && texts.len() < most {
            match self.input.next() {
                Ok(None) => break,
                Ok(Some(Ok(Row { id, text }))) => {
                    if let Err(problem) = self.check_id(id.as_ref()) {
                        if let Err(error) = self.bad.row(self.input.n_read(), problem) {
                            self.failed = Some(error);
                            break;
                        }
                        continue;
                    }
                    ids.push((self.input.n_read(), id));
                    texts.push(text);
                }
                Ok(Some(Err(problem))) => {
                    if let Err(error) = self.bad.row(self.input.n_read(), &problem) {
                        self.failed = Some(error);
                        break;
                    }
                }
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            end = self.input.n_read();
        }
        (!texts.is_empty()).then_some(Chunk { ids, texts, end })
    }
}

/// Rows that cannot be embedded.
struct Bad {
    skips: bool,
    n_rows: u64,
}

impl Bad {
    /// Leaves a row out, or says that it ends the run.
    fn row(&mut self, number: u64, problem: &str) -> anyhow::Result<()> {
        if !self.skips {
            bail!("row {number} {problem}: --on-error skip leaves such rows out");
        }
        self.n_rows += 1;
        if self.n_rows <= MOST_SAID {
            tracing::warn!("row {number} is left out: it {problem}");
        }
        Ok(())
    }

    fn sum_up(&self) {
        if self.n_rows > 0 {
            tracing::warn!("{} rows were left out", self.n_rows);
        }
    }
}

/// Embeds all rows. Some chunks are on their way while one is read or written, so that the model never waits for a file.
/// Returns the rows of the input that are written.
async fn embed_all(
    model: &Arc<Asked>,
    input: &mut Input,
    output: &mut Output,
    skips: bool,
) -> Result<u64, Stopped> {
    let chunk_rows = (model.most_at_once / IN_FLIGHT).clamp(1, LINES);
    let in_flight = (model.most_at_once / chunk_rows).clamp(1, IN_FLIGHT);
    let mut reader = Reader {
        input,
        bad: Bad { skips, n_rows: 0 },
        failed: None,
        ids_are_numbers: output.ids_are_numbers(),
    };
    let mut end = output.n_done();
    let stopped = |error, end| Stopped { error, end };
    reader.skip(end).map_err(|error| stopped(error, end))?;
    if end == 0 && reader.input.looks_like_json() {
        tracing::warn!(
            "line 1 looks like JSON and is taken for text as it is: --input-format jsonl reads its members"
        );
    }
    if end > 0 {
        tracing::warn!("{end} rows are done by an earlier run: this one goes on after them");
    }
    let before = reader.input.progress().map_or(0, |(read, _)| read);
    let (mut progress, mut n_rows) = (Progress::start(), 0);
    let mut chunks = VecDeque::new();
    loop {
        while chunks.len() < in_flight
            && let Some(Chunk { ids, texts, end }) = reader.next(chunk_rows)
        {
            let embedded = tokio::spawn(Arc::clone(model).embed(texts));
            chunks.push_back((ids, end, embedded));
        }
        let Some((ids, chunk_end, embedded)) = chunks.pop_front() else {
            break;
        };
        let embedded = embedded.await.map_err(anyhow::Error::new);
        let embedded = embedded.and_then(|done| Ok(done?));
        let embedded = embedded.map_err(|error| stopped(error, end))?;
        let (mut rows, mut is_whole, mut bad_row) = (Vec::new(), true, 0);
        for ((number, id), embedding) in ids.into_iter().zip(embedded) {
            match embedding {
                Ok(embedding) => rows.push((id, embedding)),
                Err(error) => {
                    let problem = format!("cannot be embedded: {error}");
                    if let Err(error) = reader.bad.row(number, &problem) {
                        // The rows before it are kept.
                        reader.failed = Some(error);
                        (bad_row, is_whole) = (number, false);
                        break;
                    }
                }
            }
        }
        if is_whole {
            end = chunk_end;
        } else {
            end = bad_row - 1;
            chunks.clear();
        }
        n_rows += rows.len() as u64;
        output
            .write(rows, end)
            .map_err(|error| stopped(error, end))?;
        let done = reader.input.progress();
        let done = done.map(|(read, all)| (read - before, all.saturating_sub(read)));
        progress.tell(n_rows, done);
    }
    progress.end_line();
    reader.bad.sum_up();
    match reader.failed {
        Some(error) => Err(stopped(error, end)),
        // Bad rows at the end belong to it.
        None => Ok(reader.input.n_read()),
    }
}

/// A model, and what is asked of it.
struct Asked {
    embedder: Embedder,
    most_at_once: usize,
    outputs: Outputs,
    dimensions: Option<usize>,
}

impl Asked {
    /// Embeds texts together; where one of them is at fault, each by itself.
    async fn embed(
        self: Arc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Embedding, Error>>, Error> {
        match self.embed_together(texts.clone()).await {
            Ok(embeddings) => Ok(embeddings.into_iter().map(Ok).collect()),
            Err(error) if error.kind == ErrorKind::InvalidRequest => {
                let mut all = Vec::new();
                for text in texts {
                    all.push(match self.embed_together(vec![text]).await {
                        Ok(mut embeddings) => embeddings.pop().ok_or(error.clone()),
                        Err(own) if own.kind == ErrorKind::InvalidRequest => Err(own),
                        Err(other) => return Err(other),
                    });
                }
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }

    async fn embed_together(&self, texts: Vec<String>) -> Result<Vec<Embedding>, Error> {
        let request = EmbedRequest {
            outputs: self.outputs,
            dimensions: self.dimensions,
            ..EmbedRequest::new(texts.into_iter().map(Text).collect())
        };
        let ctx = RequestContext {
            id: "embed".into(),
            principal: Principal::Anonymous,
            deadline: Instant::now() + NO_DEADLINE,
            lane: Some(Lane::Bulk),
            spent: Arc::default(),
            // Nobody else waits, and nobody comes back later.
            begun: Arc::new(Begun::already()),
        };
        let request = Preprocessed::unchanged(request);
        let answer = self.embedder.embed(&ctx, request).await?;
        Ok(answer.embeddings)
    }
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

/// Loads just the model that is asked for; also tells how many rows are on their way at once.
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
    let loading = Loading {
        surroundings: &surroundings,
        metrics: &metrics,
        room: &|_| Ok(()),
    };
    let config = Arc::new(model.clone());
    let model =
        load::load(name, model, loading).map_err(|e| anyhow::anyhow!("model {name}: {e}"))?;
    let most_at_once = model.batcher().most_at_once(Lane::Bulk);
    let most_at_once = most_at_once.min(IN_FLIGHT * LINES);
    let cache = CacheConfig {
        max_size: CACHE,
        ..CacheConfig::default()
    };
    let entry = Entry {
        about: Arc::new(About::new(name, &config)),
        state: State::Loaded(Arc::new(model)),
    };
    let registry = ModelRegistry::new(vec![entry], Some(name), UnknownModel::Refuse);
    Ok((
        Embedder::new(registry, EmbeddingCache::new(&cache, None, &metrics), LINES),
        most_at_once,
    ))
}
