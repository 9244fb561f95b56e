//! From the bytes of a body to a query and its documents.

use embedgate_request::{EmbedRequest, Error, Input, LongDocuments, Side, TokenIds};

use super::{
    super::{input::texts, member::Count, object::Source},
    body::{
        Flag, RankingRequest, RankingTruncate, RerankRequest, ScoreQueries, ScoreTexts, TEXT,
        TeiRerankRequest, Text,
    },
};
use crate::embed::Length;

/// The API whose form a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RerankApi {
    Jina,
    /// As Jina, but that the answer has other names; known by members that are Voyage's alone.
    Voyage,
    Cohere,
    Tei,
    /// vLLM's scores, in the order of the documents.
    Score,
    /// NVIDIA's rankings.
    Nim,
}

/// The options of a request, in addition to the scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct RerankOptions {
    /// The API whose form the answer has.
    pub(super) api: RerankApi,
    /// So many of the best; none means all.
    pub(super) top_n: Option<usize>,
    /// True when the answer holds the documents.
    pub(super) with_documents: bool,
    /// True when scores are given as the model gives them, and not within 0 and 1.
    pub(super) raw_scores: bool,
    /// The treatment of long documents.
    pub(super) length: Length,
}

impl RerankOptions {
    /// The options of a request that says nothing.
    fn of(api: RerankApi) -> Self {
        Self {
            api,
            top_n: None,
            with_documents: false,
            raw_scores: false,
            length: Length::default(),
        }
    }
}

/// Returns the API that a body of `/rerank` speaks: `texts` is a member of text-embeddings-inference's, `documents` of all others'.
pub(super) fn api(source: &Source<'_>) -> RerankApi {
    match source.has("texts") {
        true => RerankApi::Tei,
        false => RerankApi::Jina,
    }
}

/// Reads a body: the query is the first input of the request, the documents are the rest.
pub(super) fn request(
    source: &mut Source<'_>,
    api: RerankApi,
) -> Result<(EmbedRequest, RerankOptions), Error> {
    match api {
        RerankApi::Jina | RerankApi::Voyage | RerankApi::Cohere => documents(source, api),
        RerankApi::Tei => tei(source),
        RerankApi::Score => Ok((score(source)?, RerankOptions::of(api))),
        RerankApi::Nim => Ok((ranking(source)?, RerankOptions::of(api))),
    }
}

fn documents(
    source: &mut Source<'_>,
    api: RerankApi,
) -> Result<(EmbedRequest, RerankOptions), Error> {
    let body: RerankRequest<'_> = source.members()?;
    let is_voyages = body.top_k.is_some() || body.truncation.is_some();
    let query = query("query", body.query)?;
    let request = EmbedRequest {
        model: body.model,
        truncate: Flag::get(body.truncate).or(Flag::get(body.truncation)),
        side: body.truncation_direction.map(Side::from),
        ..of(
            query,
            texts("documents", body.documents, source.max_inputs)?,
        )
    };
    let options = RerankOptions {
        api: match api {
            RerankApi::Jina if is_voyages => RerankApi::Voyage,
            api => api,
        },
        top_n: Count::get(body.top_n).or(Count::get(body.top_k)),
        with_documents: Flag::get(body.return_documents).unwrap_or(false),
        raw_scores: Flag::get(body.raw_scores).unwrap_or(false),
        length: Length {
            long_documents: body.long_documents.map(LongDocuments::from),
            max_tokens: Count::get(body.max_tokens_per_doc),
        },
    };
    Ok((request, options))
}

fn tei(source: &mut Source<'_>) -> Result<(EmbedRequest, RerankOptions), Error> {
    let body: TeiRerankRequest<'_> = source.members()?;
    let query = query("query", body.query)?;
    let request = EmbedRequest {
        model: body.model,
        truncate: Flag::get(body.truncate),
        side: body.truncation_direction.map(Side::from),
        ..of(query, texts("texts", body.texts, source.max_inputs)?)
    };
    let options = RerankOptions {
        top_n: Count::get(body.top_n),
        with_documents: Flag::get(body.return_text).unwrap_or(false),
        raw_scores: Flag::get(body.raw_scores).unwrap_or(false),
        length: Length {
            long_documents: body.long_documents.map(LongDocuments::from),
            max_tokens: Count::get(body.max_tokens_per_doc),
        },
        ..RerankOptions::of(RerankApi::Tei)
    };
    Ok((request, options))
}

fn score(source: &mut Source<'_>) -> Result<EmbedRequest, Error> {
    let max = source.max_inputs;
    if source.has("text_1") {
        let body: ScoreTexts<'_> = source.members()?;
        let query = query("text_1", body.text_1)?;
        let texts = texts("text_2", body.text_2, max)?;
        return Ok(EmbedRequest {
            model: body.model,
            ..of(query, texts)
        });
    }
    let body: ScoreQueries<'_> = source.members()?;
    let query = query("queries", body.queries)?;
    Ok(EmbedRequest {
        model: body.model,
        ..of(query, texts("documents", body.documents, max)?)
    })
}

fn ranking(source: &mut Source<'_>) -> Result<EmbedRequest, Error> {
    let body: RankingRequest<'_> = source.members()?;
    let query = query("query", body.query)?;
    Ok(EmbedRequest {
        model: body.model,
        truncate: body
            .truncate
            .map(|truncate| truncate == RankingTruncate::End),
        ..of(query, texts("passages", body.passages, source.max_inputs)?)
    })
}

/// A request for the scores of documents for a query.
fn of(query: Input, documents: Vec<Input>) -> EmbedRequest {
    EmbedRequest {
        token_ids: TokenIds::Reject,
        ..EmbedRequest::new(std::iter::once(query).chain(documents).collect())
    }
}

fn query(name: &'static str, given: Option<Text>) -> Result<Input, Error> {
    let missing = || Error::invalid(name, format!("{name} is missing: {TEXT}"));
    given
        .map(|Text(text)| Input::Text(text))
        .ok_or_else(missing)
}
