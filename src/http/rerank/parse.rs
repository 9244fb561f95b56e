//! From the bytes of a body to a query and its documents.

use std::{borrow::Cow, fmt};

use embedgate_request::{EmbedRequest, Error, Input, LongDocuments, Side, TokenIds};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::super::{
    foreign::{Foreign, OF_RERANK},
    input::texts,
    member::{Count, Raw},
    object::{Members, Source},
    openapi::lists::{self, Texts, one_of},
    tei::Direction,
};
use crate::embed::Length;

/// The form of a text, for errors.
const TEXT: &str = "a string, or an object with text";

/// The body of Jina, of Cohere, and, where it has members of its own, of Voyage.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct RerankRequest<'a> {
    model: Option<String>,
    #[schema(value_type = lists::Text)]
    query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    documents: Option<Raw<'a>>,
    /// So many of the best; all where nothing is said.
    #[schema(value_type = Option<u64>, minimum = 0)]
    top_n: Option<Count>,
    /// Voyage's name of top_n. With it, or with truncation, the answer is as Voyage writes it.
    #[schema(value_type = Option<u64>, minimum = 0)]
    top_k: Option<Count>,
    /// true: the answer holds the documents.
    return_documents: Option<Flag>,
    /// Scores as the model gives them.
    raw_scores: Option<Flag>,
    /// false: over-long documents are refused.
    truncate: Option<Flag>,
    /// Voyage's name of truncate.
    truncation: Option<Flag>,
    truncation_direction: Option<Direction>,
    /// Only so many tokens of each document count; all where nothing is said.
    #[schema(value_type = Option<u64>, minimum = 0)]
    max_tokens_per_doc: Option<Count>,
    /// The treatment of documents that are longer than the model takes.
    long_documents: Option<WhereLong>,
}

impl<'a> Members<'a> for RerankRequest<'a> {
    const NEEDED: &'static str = "query and documents";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of text-embeddings-inference.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiRerankRequest<'a> {
    model: Option<String>,
    #[schema(value_type = lists::Text)]
    query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    texts: Option<Raw<'a>>,
    /// Scores as the model gives them.
    raw_scores: Option<Flag>,
    /// true: the answer holds the texts.
    return_text: Option<Flag>,
    truncate: Option<Flag>,
    truncation_direction: Option<Direction>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    top_n: Option<Count>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    max_tokens_per_doc: Option<Count>,
    long_documents: Option<WhereLong>,
}

impl<'a> Members<'a> for TeiRerankRequest<'a> {
    const NEEDED: &'static str = "query and texts";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of vLLM's scores.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct ScoreTexts<'a> {
    model: Option<String>,
    /// One text, also as an object with text.
    #[schema(value_type = lists::Text)]
    text_1: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    text_2: Option<Raw<'a>>,
}

impl<'a> Members<'a> for ScoreTexts<'a> {
    const NEEDED: &'static str = "text_1 and text_2";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of vLLM's scores, under newer names.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct ScoreQueries<'a> {
    model: Option<String>,
    /// One text, also as an object with text.
    #[schema(value_type = lists::Text)]
    queries: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    documents: Option<Raw<'a>>,
}

impl<'a> Members<'a> for ScoreQueries<'a> {
    const NEEDED: &'static str = "queries and documents";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of NVIDIA's rankings.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct RankingRequest<'a> {
    model: Option<String>,
    #[schema(value_type = lists::Text)]
    query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    passages: Option<Raw<'a>>,
    /// END: over-long passages are cut; NONE: they are refused.
    truncate: Option<RankingTruncate>,
}

impl<'a> Members<'a> for RankingRequest<'a> {
    const NEEDED: &'static str = "query and passages";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// One document, or several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
enum RerankDocuments {
    One(String),
    Several(#[schema(inline)] Texts),
}

#[derive(Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum RankingTruncate {
    End,
    None,
}

/// Cut them, or refuse them as `truncate` says; or score them in windows that overlap, of which the best one counts.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[schema(as = LongDocuments)]
#[serde(rename_all = "lowercase")]
enum WhereLong {
    Truncate,
    Windows,
}

impl From<WhereLong> for LongDocuments {
    fn from(said: WhereLong) -> Self {
        match said {
            WhereLong::Truncate => Self::Truncate,
            WhereLong::Windows => Self::Windows,
        }
    }
}

/// The API whose form a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
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
pub(super) struct Options {
    /// The API whose form the answer has.
    pub(super) shape: Shape,
    /// So many of the best; none means all.
    pub(super) top_n: Option<usize>,
    /// True when the answer holds the documents.
    pub(super) with_documents: bool,
    /// True when scores are given as the model gives them, and not within 0 and 1.
    pub(super) raw_scores: bool,
    /// The treatment of long documents.
    pub(super) length: Length,
}

impl Options {
    /// The options of a request that says nothing.
    fn of(shape: Shape) -> Self {
        Self {
            shape,
            top_n: None,
            with_documents: false,
            raw_scores: false,
            length: Length::default(),
        }
    }
}

/// Tells a body of `/rerank`: texts are text-embeddings-inference's, documents everybody else's.
pub(super) fn shape(source: &Source<'_>) -> Shape {
    match source.has("texts") {
        true => Shape::Tei,
        false => Shape::Jina,
    }
}

/// Reads a body: the query is the first input of the request, the documents are the rest.
pub(super) fn request(
    source: &mut Source<'_>,
    shape: Shape,
) -> Result<(EmbedRequest, Options), Error> {
    match shape {
        Shape::Jina | Shape::Voyage | Shape::Cohere => documents(source, shape),
        Shape::Tei => tei(source),
        Shape::Score => Ok((score(source)?, Options::of(shape))),
        Shape::Nim => Ok((ranking(source)?, Options::of(shape))),
    }
}

fn documents(source: &mut Source<'_>, shape: Shape) -> Result<(EmbedRequest, Options), Error> {
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
    let options = Options {
        shape: match shape {
            Shape::Jina if is_voyages => Shape::Voyage,
            shape => shape,
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

fn tei(source: &mut Source<'_>) -> Result<(EmbedRequest, Options), Error> {
    let body: TeiRerankRequest<'_> = source.members()?;
    let query = query("query", body.query)?;
    let request = EmbedRequest {
        model: body.model,
        truncate: Flag::get(body.truncate),
        side: body.truncation_direction.map(Side::from),
        ..of(query, texts("texts", body.texts, source.max_inputs)?)
    };
    let options = Options {
        top_n: Count::get(body.top_n),
        with_documents: Flag::get(body.return_text).unwrap_or(false),
        raw_scores: Flag::get(body.raw_scores).unwrap_or(false),
        length: Length {
            long_documents: body.long_documents.map(LongDocuments::from),
            max_tokens: Count::get(body.max_tokens_per_doc),
        },
        ..Options::of(Shape::Tei)
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

/// A text, as itself or as Jina writes it: `{"text": "..."}`.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlainOrObject;
        impl<'de> Visitor<'de> for PlainOrObject {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TEXT)
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
                let only = || de::Error::invalid_type(de::Unexpected::Map, &self);
                let mut text = None;
                while let Some(name) = members.next_key::<Cow<'de, str>>()? {
                    if name != "text" || text.is_some() {
                        return Err(only());
                    }
                    text = Some(members.next_value()?);
                }
                text.map(Text).ok_or_else(only)
            }
        }
        deserializer.deserialize_any(PlainOrObject)
    }
}

/// true or false, as such or as clients write it that make strings of all: RAGFlow's for Xinference does.
#[derive(Clone, Copy)]
struct Flag(bool);

impl Flag {
    const TRUE: [&'static str; 2] = ["true", "True"];
    const FALSE: [&'static str; 3] = ["false", "False", ""];

    fn get(given: Option<Self>) -> Option<bool> {
        given.map(|Self(is_set)| is_set)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BooleanOrWord;
        impl Visitor<'_> for BooleanOrWord {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E>(self, is_set: bool) -> Result<Flag, E> {
                Ok(Flag(is_set))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Flag, E> {
                match Flag::TRUE.contains(&word) {
                    true => Ok(Flag(true)),
                    false if Flag::FALSE.contains(&word) => Ok(Flag(false)),
                    false => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(BooleanOrWord)
    }
}

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        let words = Self::TRUE.into_iter().chain(Self::FALSE);
        let booleans = [true.into(), false.into()].into_iter();
        one_of(booleans.chain(words.map(Value::from)))
    }
}

impl ToSchema for Flag {}
