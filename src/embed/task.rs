//! The work for one input: tokens, then a place in a batch, then its results.

use std::{sync::Arc, time::Instant};

use embedgate_core::Outputs;
use embedgate_request::{
    EmbedRequest, Error, ErrorKind, Input, Lane, MOST_COUNTED, Step, Timings, Truncation,
};

use crate::{
    batch::{Admission, SequenceWork, Urgent},
    cache::value::Computed,
    model::{Model, tokenizer::Tokenized},
};

/// The work for each input of a request. It outlives the request while others wait for the same result.
#[derive(Clone)]
pub(super) struct EmbedTask {
    pub(super) model: Arc<Model>,
    /// Put in front of texts.
    pub(super) prompt: Arc<str>,
    pub(super) truncation: Truncation,
    pub(super) lane: Lane,
    /// The record of the time spent, of the request that asked first.
    pub(super) timings: Arc<Timings>,
}

impl EmbedTask {
    /// Tokenizes and runs one input. Holds the leave until the backend has answered.
    pub(super) async fn compute(
        self,
        input: Input,
        outputs: Outputs,
        urgent: Urgent,
        admission: Admission,
    ) -> Result<Computed, Error> {
        let EmbedTask {
            model,
            prompt,
            truncation,
            lane,
            timings,
        } = self;
        let started = Instant::now();
        let tokens = model.tokenize(&prompt, &input, truncation, lane).await?;
        timings.add(Step::Tokenize, started, Instant::now());
        drop((input, prompt));
        check_length(&model, &tokens, truncation)?;
        let (n_tokens, n_tokens_full) = (tokens.ids.len(), tokens.n_tokens_full);
        let work = SequenceWork {
            ids: tokens.ids,
            type_ids: tokens.type_ids,
            outputs,
            urgent,
            admission,
            timings,
        };
        let row = model.batcher().embed(work).await?;
        if !row.fits(model.info.dimensions, n_tokens) {
            let message = "the model gave a result of another size than its own";
            return Err(Error::new(ErrorKind::Internal, message));
        }
        Ok(Computed {
            row,
            n_tokens,
            n_tokens_full,
        })
    }
}

/// Refuses an input that had to be cut where that is not wanted.
pub(super) fn check_length(
    model: &Model,
    tokens: &Tokenized,
    truncation: Truncation,
) -> Result<(), Error> {
    if tokens.n_tokens_full <= tokens.ids.len() || truncation != Truncation::Refuse {
        return Ok(());
    }
    let most = model.info.max_sequence_tokens;
    // `LiteLLM` knows the error by the words of OpenAI: "maximum context length is".
    let counted = MOST_COUNTED.max(most);
    let n = match tokens.n_tokens_full {
        n if n > counted => format!("more than {counted}"),
        n => n.to_string(),
    };
    let message = format!(
        "input has {n} tokens, model \"{}\" takes at most {most} (its maximum context length is {most} tokens): shorten it, or \
         allow truncation",
        model.name
    );
    Err(Error::invalid("input", message).with_code("context_length_exceeded"))
}

/// The treatment of an over-long input: as the request says, else as the model's configuration does.
pub(super) fn truncation(model: &Model, request: &EmbedRequest) -> Truncation {
    let (side, most) = (request.side.unwrap_or(model.side()), request.max_tokens);
    let is_cut = request.truncate.unwrap_or(model.config.truncate);
    match is_cut || most.is_some() {
        true => Truncation::Cut { side, most },
        false => Truncation::Refuse,
    }
}
