//! `embedgate embed`: lines of text in, what a model gives of each out, without a server.

mod input;
mod job;
mod output;
mod parts;
mod progress;
mod rows;

use std::{collections::VecDeque, path::Path, sync::Arc};

use embedgate_config::{Config, Environment, LogLevel};
use embedgate_request::{Embedding, Error};
use serde_json::Value;

use self::{
    input::Input,
    job::{EmbedJob, outputs},
    output::{Embedded, Output},
    parts::run::Run,
    progress::Progress,
    rows::{Bad, Chunk, Reader},
};
use super::{Failure, runtime, start_log};
use crate::args::embed::EmbedArgs;

/// Rows that are embedded together: enough to fill batches of like length.
const LINES: usize = 256;
/// Chunks of rows in flight.
const IN_FLIGHT: usize = 3;

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
    let model = Arc::new(EmbedJob::load(&config, args, environment)?);
    let loaded = model.embedder.registry().resolve(None);
    let loaded = Arc::clone(loaded.map_err(anyhow::Error::new)?);
    let run = |format| Run::of(args, format, &loaded);
    let mut output = Output::new(args, outputs(args), run)?;
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

/// Embeds all rows. Some chunks are on their way while one is read or written, so that the model never waits for a file.
/// Returns the rows of the input that are written.
async fn embed_all(
    model: &Arc<EmbedJob>,
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
        let (rows, bad_row) = good_rows(&mut reader, ids, embedded);
        end = match bad_row {
            None => chunk_end,
            // The rows before it are kept.
            Some(number) => {
                chunks.clear();
                number - 1
            }
        };
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

/// The rows that could be embedded, up to the first that ends the run; and the number of that one.
fn good_rows(
    reader: &mut Reader<'_>,
    ids: Vec<(u64, Option<Value>)>,
    embedded: Vec<Result<Embedding, Error>>,
) -> (Vec<Embedded>, Option<u64>) {
    let mut rows = Vec::new();
    for ((number, id), embedding) in ids.into_iter().zip(embedded) {
        match embedding {
            Ok(embedding) => rows.push((id, embedding)),
            Err(error) => {
                let problem = format!("cannot be embedded: {error}");
                if let Err(error) = reader.bad.row(number, &problem) {
                    reader.failed = Some(error);
                    return (rows, Some(number));
                }
            }
        }
    }
    (rows, None)
}
