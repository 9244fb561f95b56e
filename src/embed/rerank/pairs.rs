//! Scores by a cross-encoder, which reads the query and a passage together.

use std::{sync::Arc, time::Instant};

use embedgate_core::{Head, Outputs};
use embedgate_request::{Cut, Error, ErrorKind, Input, Step, Truncation};
use futures_util::future::try_join_all;

use super::{RerankTask, Scored, text};
use crate::{
    batch::{Patience, SequenceWork, Urgent},
    embed::{charge::Charge, task::check_length},
    model::tokenizer::pair::Query,
};

/// Id and segment of a token, which wait with it.
const BYTES_PER_TOKEN: usize = 4 + 4;

/// Tokenizes the query, once for all pairs.
pub(super) async fn query(task: &RerankTask<'_>, query: Input) -> Result<Query, Error> {
    let of_query = |error: Error| Error {
        param: error.param.map(|_| "query"),
        ..error
    };
    let query = task.model.tokenize_query(text(query)?, task.lane).await;
    let query = query.map_err(of_query)?;
    let (n, most) = (query.n_tokens_full, query.n_tokens());
    if n > most && task.truncation == Truncation::Refuse {
        let message = format!(
            "query has {n} tokens, of which model \"{}\" takes at most {most} beside a document: shorten it, or allow \
             truncation",
            task.model.name
        );
        return Err(Error::invalid("query", message).with_code("context_length_exceeded"));
    }
    Ok(query)
}

/// Runs each pair of the query and a passage through the model: admitted all or none, in batches with whatever else waits.
/// An error names a passage.
pub(super) async fn score(
    task: &RerankTask<'_>,
    query: &Arc<Query>,
    passages: Vec<Input>,
) -> Result<Scored, Error> {
    let (model, lane, truncation) = (task.model, task.lane, task.truncation);
    let most = model.info.max_sequence_tokens;
    let tokens = |passage| (query.n_tokens() + model.reserve_tokens(passage)).min(most);
    let tokens: usize = passages.iter().map(tokens).sum();
    let _memory = task.ctx.memory.take(tokens * BYTES_PER_TOKEN)?;
    let estimate = |passage| (query.n_tokens() + model.estimate_tokens(passage)).min(most);
    let estimates: Vec<usize> = passages.iter().map(estimate).collect();
    let admissions = model
        .batcher()
        .admit(&estimates, lane, Patience::of(&task.ctx))?;
    let charge = Charge::estimated(&task.ctx, || estimates.iter().sum())?;
    let pairs = passages.into_iter().zip(admissions).enumerate();
    let pairs = pairs.map(|(i, (passage, admission))| async move {
        let scored = async {
            let text = Arc::new(text(passage)?);
            let started = Instant::now();
            let tokens = model
                .tokenize_pair(query, text, truncation.side(), lane)
                .await?;
            task.ctx
                .timings
                .add(Step::Tokenize, started, Instant::now());
            check_length(model, &tokens, truncation)?;
            let (from, to) = (tokens.n_tokens_full, tokens.ids.len());
            let work = SequenceWork {
                ids: tokens.ids,
                type_ids: tokens.type_ids,
                outputs: Outputs::SCORE,
                urgent: Urgent::default(),
                admission,
                timings: Arc::clone(&task.ctx.timings),
            };
            let row = model.batcher().embed(work).await?;
            let missing = || Error::new(ErrorKind::Internal, "the model gave no score");
            let index = Some(i);
            Ok::<_, Error>((
                row.score(Head::Score).ok_or_else(missing)?,
                Cut { index, from, to },
            ))
        };
        scored.await.map_err(|error| error.of_input(i))
    });
    let scored = match try_join_all(pairs).await {
        Ok(scored) => scored,
        Err(error) => {
            charge.fail(&error);
            return Err(error);
        }
    };
    let (scores, lengths): (Vec<f32>, Vec<Cut>) = scored.into_iter().unzip();
    let n_tokens = lengths.iter().map(|cut| cut.to).sum();
    charge.settle(n_tokens);
    model.metrics.tokens.inc_by(n_tokens as u64);
    let of_query = Cut {
        index: None,
        from: query.n_tokens_full,
        to: query.n_tokens(),
    };
    let all = std::iter::once(of_query).chain(lengths);
    Ok(Scored {
        scores,
        n_tokens,
        n_cached: 0,
        cuts: all.filter(|cut| cut.from > cut.to).collect(),
    })
}
