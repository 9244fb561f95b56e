//! Documents as they go to the model: whole, cut, or, where they are longer than it takes, in windows of which the best
//! one counts.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_request::{Cut, Error, Held, Input, InputKind, LongDocuments};
use futures_util::future::try_join_all;

use super::{RerankTask, text};
use crate::model::{Model, tokenizer::Cutting};

/// Windows overlap by a quarter: they take up to 4/3 of the document's bytes.
const WINDOW_BYTES_PER_BYTE: usize = 2;
/// Bytes of the place of one token, which is held while a text is cut.
const PLACE_BYTES: usize = size_of::<std::ops::Range<usize>>();

/// The options of a request for long documents.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length {
    /// The treatment of documents that are longer than the model takes; none means as the model's config says.
    pub long_documents: Option<LongDocuments>,
    /// Only so many tokens of each document count.
    pub max_tokens: Option<usize>,
}

impl Length {
    /// Returns true when a document may have to be cut before the model sees it.
    pub(super) fn cuts(self, model: &Model) -> bool {
        self.in_windows(model) || self.max_tokens.is_some()
    }

    fn in_windows(self, model: &Model) -> bool {
        self.long_documents.unwrap_or(model.config.long_documents) == LongDocuments::Windows
    }
}

/// Counts the tokens that a document may have behind the prompt of documents; 0 when documents do not go in windows.
pub(super) async fn room(task: &RerankTask<'_>, length: Length) -> Result<usize, Error> {
    if !length.in_windows(task.model) {
        return Ok(0);
    }
    let prompt = task.request.prompt_name.as_deref();
    let prompt = task.model.prompts.choose(prompt, InputKind::Document)?;
    task.model.room_behind(Arc::clone(prompt), task.lane).await
}

/// Documents, or parts of them, as they go to the model.
pub(super) struct Passages {
    /// In the order of the documents.
    inputs: Vec<Input>,
    /// The document of each.
    documents: Vec<usize>,
    /// The cuts of documents before the model sees them.
    shortened: Vec<Cut>,
    /// The memory held for the texts of windows.
    _memory: Option<Held>,
}

impl Passages {
    /// Cuts documents as it is asked, where there is room for so many tokens of one.
    pub(super) async fn of(
        task: &RerankTask<'_>,
        length: Length,
        room: usize,
        documents: Vec<Input>,
    ) -> Result<Self, Error> {
        let (model, lane, memory) = (task.model, task.lane, &task.ctx.memory);
        if !length.cuts(model) {
            return Ok(Self {
                documents: (0..documents.len()).collect(),
                inputs: documents,
                shortened: Vec::new(),
                _memory: None,
            });
        }
        let cutting = Cutting {
            max_tokens: length.max_tokens,
            side: task.request.side.unwrap_or(model.side()),
            room: length.in_windows(model).then_some(room),
            max_windows: model.batcher().most_at_once(lane),
        };
        let bytes = Input::total_bytes(&documents);
        let places = documents.iter().map(|document| {
            let bytes = Input::total_bytes(std::slice::from_ref(document));
            model.tokenizer.most_places(bytes, cutting)
        });
        let while_cutting =
            memory.take(bytes * WINDOW_BYTES_PER_BYTE + places.sum::<usize>() * PLACE_BYTES)?;
        let cut = documents
            .into_iter()
            .enumerate()
            .map(|(i, document)| async move {
                let text = Arc::new(text(document)?);
                let parts = model.parts(&text, cutting, lane).await;
                let parts = parts.map_err(|error| error.of_input(i).of_document(|i| i))?;
                Ok::<_, Error>((text, parts))
            });
        let cut = try_join_all(cut).await?;
        let held = memory.take(bytes * WINDOW_BYTES_PER_BYTE)?;
        drop(while_cutting);
        check_count(task, cut.iter().map(|(_, parts)| parts.ranges.len()).sum())?;
        let mut passages = Self {
            inputs: Vec::new(),
            documents: Vec::new(),
            shortened: Vec::new(),
            _memory: Some(held),
        };
        for (i, (text, parts)) in cut.into_iter().enumerate() {
            if parts.n_counted < parts.n_tokens {
                passages.shortened.push(Cut {
                    index: Some(i),
                    from: parts.n_tokens,
                    to: parts.n_counted,
                });
            }
            for range in parts.ranges {
                passages.inputs.push(Input::Text(text[range].to_owned()));
                passages.documents.push(i);
            }
        }
        Ok(passages)
    }

    /// The passages, which are read once.
    pub(super) fn take_inputs(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.inputs)
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

    /// Returns the cuts of the query and of each document, from the cuts of passages: before the model saw them and
    /// when it did. When several passages of one document were cut, the first one speaks for it.
    pub(super) fn cuts(&self, of_passages: Vec<Cut>) -> Vec<Cut> {
        let mut all: BTreeMap<Option<usize>, Cut> = BTreeMap::new();
        for cut in of_passages {
            let index = cut.index.map(|passage| self.document(passage));
            all.entry(index).or_insert(Cut { index, ..cut });
        }
        for before in &self.shortened {
            let cut_again = |after: &mut Cut| {
                // The model counts what stands around the document too.
                let around = after.from.saturating_sub(before.to);
                after.from = before.from + around;
            };
            let entry = all.entry(before.index).and_modify(cut_again);
            entry.or_insert(*before);
        }
        all.into_values().collect()
    }
}

/// Refuses documents that make more windows than can ever be let in at once.
fn check_count(task: &RerankTask<'_>, n: usize) -> Result<(), Error> {
    let most = task.model.batcher().most_at_once(task.lane);
    if n <= most {
        return Ok(());
    }
    let message = format!(
        "documents make more than {most} windows, which is what model \"{}\" takes at once: send less, or ask for \
         \"long_documents\": \"truncate\"",
        task.model.name
    );
    Err(Error::invalid("documents", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_lost_before_and_in_the_model_is_said_as_one() {
        let cut = |index, from, to| Cut { index, from, to };
        let passages = Passages {
            inputs: Vec::new(),
            documents: vec![0, 1, 1, 2],
            shortened: vec![cut(Some(0), 100, 40), cut(Some(2), 9, 5)],
            _memory: None,
        };
        let of_passages = vec![
            cut(None, 50, 20),
            cut(Some(0), 42, 32),
            cut(Some(1), 34, 32),
            cut(Some(2), 40, 32),
        ];
        assert_eq!(
            passages.cuts(of_passages),
            [
                cut(None, 50, 20),
                cut(Some(0), 102, 32),
                cut(Some(1), 34, 32),
                cut(Some(2), 9, 5),
            ]
        );
    }
}
