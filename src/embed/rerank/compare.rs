//! Scores by the vectors that one model gives of the query and of passages.

use std::sync::Arc;

use embedgate_core::{Head, Outputs};
use embedgate_request::{Cut, EmbedRequest, EmbedResponse, Error, Input, InputKind};

use super::{RerankTask, Scored, vectors};
use crate::{
    blocking,
    embed::{pipeline::Pipeline, preprocess::Preprocessed},
    model::Model,
};

/// Passages are compared in groups whose results take about so many bytes: token vectors of many would fill the memory.
const GROUP_BYTES: usize = 32 << 20;
/// Bytes of a number while it is compared: kept, and copied.
const BYTES_PER_NUMBER: usize = 4 + 4;

impl Pipeline {
    /// Compares vectors of passages with the query's, by these outputs. An error names a passage.
    pub(super) async fn compare(
        &self,
        task: &RerankTask<'_>,
        outputs: Outputs,
        query: Input,
        passages: Vec<Input>,
    ) -> Result<Scored, Error> {
        let model = task.model;
        let weights = model.config.rerank;
        let _memory = task.ctx.memory.take(result_bytes(model, outputs, &query))?;
        let asked = |inputs: Vec<Input>, kind: InputKind| {
            let request = EmbedRequest {
                inputs,
                outputs,
                kind,
                normalize: Some(true),
                text: None,
                dimensions: None,
                ..task.request.clone()
            };
            let target = match kind {
                InputKind::Query => task.for_queries,
                _ => task.target,
            };
            let request = Preprocessed::unchanged(request, target.clone());
            self.embed(&task.ctx, request)
        };
        let answer = asked(vec![query], InputKind::Query).await;
        let answer = answer.map_err(|error| Error {
            param: error.param.map(|_| "query"),
            entry: None,
            ..error
        })?;
        let of_query = answer.cuts().map(|cut| Cut { index: None, ..cut });
        let mut scored = Scored {
            n_tokens: answer.n_tokens(),
            n_cached: answer.n_cached,
            cuts: of_query.collect(),
            ..Scored::default()
        };
        let query: Arc<EmbedResponse> = Arc::new(answer);
        let sizes = passages
            .iter()
            .map(|passage| result_bytes(model, outputs, passage));
        let groups = groups(sizes, self.max_inputs);
        let mut passages = passages.into_iter();
        for Group { n, bytes } in groups {
            let memory = task.ctx.memory.take(bytes)?;
            let first = scored.scores.len();
            let group = passages.by_ref().take(n).collect();
            let answer = asked(group, InputKind::Document).await;
            let answer = answer.map_err(|error| error.of_document(|i| first + i))?;
            scored.n_tokens += answer.n_tokens();
            scored.n_cached += answer.n_cached;
            let cuts = answer.cuts().map(|cut| Cut {
                index: cut.index.map(|i| first + i),
                ..cut
            });
            scored.cuts.extend(cuts);
            let query = Arc::clone(&query);
            let compare = move || {
                let one = |document| vectors::score(weights, &query.embeddings[0], document);
                answer.embeddings.iter().map(one).collect::<Vec<f32>>()
            };
            let scores = blocking::run_if_large(outputs.have_rows(), compare).await?;
            scored.scores.extend(scores);
            drop(memory);
        }
        Ok(scored)
    }
}

/// Returns the outputs that are compared: all that the model gives and that have a weight.
///
/// # Errors
/// `InvalidRequest` where that is nothing.
pub(super) fn outputs(model: &Model) -> Result<Outputs, Error> {
    let (weights, gives) = (model.config.rerank, model.info.outputs);
    let is_weighted = |head: &Head| weights.of(*head) > 0.0;
    let outputs: Outputs = gives.iter().filter(is_weighted).collect();
    if outputs.is_empty() {
        let message = format!(
            "model \"{}\" cannot rerank: its rerank weights are of nothing that it gives, which is {gives}",
            model.name
        );
        return Err(Error::invalid("model", message));
    }
    Ok(outputs)
}

/// Estimates the bytes of the results of an input.
fn result_bytes(model: &Model, outputs: Outputs, input: &Input) -> usize {
    let width = model.info.dimensions * BYTES_PER_NUMBER;
    let per_token = if outputs.have_rows() { width } else { 16 };
    width + model.reserve_tokens(input) * per_token
}

/// Passages that are compared together: so many, whose results take so many bytes.
#[derive(Debug, PartialEq)]
struct Group {
    n: usize,
    bytes: usize,
}

/// Splits passages with results of these sizes, in their order, into groups of at most `max_inputs`.
fn groups(sizes: impl Iterator<Item = usize>, max_inputs: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for bytes in sizes {
        match groups.last_mut() {
            Some(group) if group.n < max_inputs && group.bytes + bytes <= GROUP_BYTES => {
                group.n += 1;
                group.bytes += bytes;
            }
            _ => groups.push(Group { n: 1, bytes }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_as_large_as_a_request_may_be_and_as_memory_allows() {
        let of = |n, bytes| Group { n, bytes };
        assert_eq!(
            groups([1; 5].into_iter(), 2),
            [of(2, 2), of(2, 2), of(1, 1)]
        );
        let large = GROUP_BYTES / 2 + 1;
        let sizes = [large, 1, large, 2 * GROUP_BYTES, 1];
        assert_eq!(
            groups(sizes.into_iter(), 100),
            [
                of(2, large + 1),
                of(1, large),
                of(1, 2 * GROUP_BYTES),
                of(1, 1)
            ]
        );
        assert_eq!(groups([].into_iter(), 2), []);
    }
}
