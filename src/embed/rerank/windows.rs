//! Documents that are longer than a model takes, in windows: the best one counts.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::MOST_QUERY_BYTES;
use crate::{
    error::{Error, ErrorKind},
    model::{Model, tokenizer::Cutting},
    request::{EmbedRequest, Input, InputKind, Lane, LongDocuments},
};

/// A part of a text may have some tokens more than the text has there: a word that is cut is other tokens.
const SLACK: usize = 4;

/// What is asked about long documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Length {
    /// What becomes of documents that are longer than the model takes; none means as the model's config says.
    pub long_documents: Option<LongDocuments>,
    /// Only so many tokens of each document count.
    pub max_tokens: Option<usize>,
}

impl Length {
    /// Whether a document may have to be cut before the model sees it.
    pub(super) fn cuts(self, model: &Model) -> bool {
        self.in_windows(model) || self.max_tokens.is_some()
    }

    fn in_windows(self, model: &Model) -> bool {
        self.long_documents.unwrap_or(model.config.long_documents) == LongDocuments::Windows
    }
}

/// Documents, or windows of them, as they go to the model.
pub(super) struct Passages {
    /// In the order of the documents.
    pub(super) inputs: Vec<Input>,
    /// The document of each.
    documents: Vec<usize>,
}

impl Passages {
    /// Cuts documents as it is asked.
    pub(super) async fn of(
        model: &Model,
        request: &EmbedRequest,
        length: Length,
        query: &Input,
        documents: Vec<Input>,
        lane: Lane,
    ) -> Result<Self, Error> {
        if !length.cuts(model) {
            return Ok(Self {
                documents: (0..documents.len()).collect(),
                inputs: documents,
            });
        }
        let window = match length.in_windows(model) {
            true => Some(room(model, request, query, lane).await?),
            false => None,
        };
        let cutting = Cutting {
            max_tokens: length.max_tokens,
            side: request.side,
            window,
        };
        let cut = documents
            .into_iter()
            .enumerate()
            .map(|(i, document)| async move {
                let text = Arc::new(text(document)?);
                let parts = model.parts(&text, cutting, lane).await;
                Ok::<_, Error>((
                    text,
                    parts.map_err(|error| error.of_input(i).of_document(|i| i))?,
                ))
            });
        let mut passages = Self {
            inputs: Vec::new(),
            documents: Vec::new(),
        };
        for (i, (text, parts)) in try_join_all(cut).await?.into_iter().enumerate() {
            for part in parts {
                passages.inputs.push(Input::Text(text[part].to_owned()));
                passages.documents.push(i);
            }
        }
        let (n, most) = (passages.inputs.len(), model.config.queue_capacity);
        if n > most {
            let message = format!(
                "documents make {n} windows, and model \"{}\" takes at most {most} at once: send less, or ask for \
                 \"long_documents\": \"truncate\"",
                model.name
            );
            return Err(Error::invalid("documents", message));
        }
        Ok(passages)
    }

    /// The document of a passage.
    pub(super) fn document(&self, passage: usize) -> usize {
        self.documents[passage]
    }

    /// The score of each document: that of its best passage.
    pub(super) fn best(&self, scores: &[f32]) -> Vec<f32> {
        let mut best: Vec<f32> = Vec::new();
        for (document, score) in self.documents.iter().zip(scores) {
            match best.get_mut(*document) {
                Some(best) => *best = best.max(*score),
                // In their order, and each has one at least.
                None => best.push(*score),
            }
        }
        best
    }
}

/// The text of an input.
pub(super) fn text(input: Input) -> Result<String, Error> {
    match input {
        Input::Text(text) => Ok(text),
        Input::Tokens(_) => Err(Error::invalid(
            "documents",
            "documents and queries are texts",
        )),
    }
}

/// How many tokens a window may have beside what comes with it.
async fn room(
    model: &Model,
    request: &EmbedRequest,
    query: &Input,
    lane: Lane,
) -> Result<usize, Error> {
    let beside = if model.info.outputs.score {
        let Input::Text(query) = query else {
            return Err(Error::new(ErrorKind::Internal, "a query without text"));
        };
        let end = query.floor_char_boundary(MOST_QUERY_BYTES);
        query[..end].to_owned()
    } else {
        let prompt = request.prompt_name.as_deref();
        let prompt = model.prompts.choose(prompt, InputKind::Document)?;
        prompt.to_string()
    };
    let room = model.room(beside, lane).await?;
    Ok(room.saturating_sub(SLACK).max(1))
}
