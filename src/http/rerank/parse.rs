//! From the bytes of a body to a query and its documents.

use embedgate_request::{EmbedRequest, Error, Input, LongDocuments, TokenIds};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    json::{count, object, one_of, texts, truncation_direction, typed, wrong},
    members::{Members, OF_RERANK},
};
use crate::embed::Length;

/// The members that mean something.
pub(in crate::http) const KNOWN: [&str; 14] = [
    "model",
    "query",
    "documents",
    "texts",
    "top_n",
    "top_k",
    "return_documents",
    "return_text",
    "raw_scores",
    "truncate",
    "truncation",
    "truncation_direction",
    "max_tokens_per_doc",
    "long_documents",
];

const MEMBERS: Members = Members {
    known: &KNOWN,
    foreign: OF_RERANK,
};

/// The members of vLLM's scores.
pub(in crate::http) const KNOWN_OF_SCORE: [&str; 5] =
    ["model", "text_1", "text_2", "queries", "documents"];

/// The members of NVIDIA's rankings.
pub(in crate::http) const KNOWN_OF_NIM: [&str; 4] = ["model", "query", "passages", "truncate"];

/// The values of NVIDIA's `truncate`, and true for the one that cuts over-long passages.
const NIM_TRUNCATES: [(&str, bool); 2] = [("END", true), ("NONE", false)];

const LONG_DOCUMENTS: [(&str, LongDocuments); 2] = [
    ("truncate", LongDocuments::Truncate),
    ("windows", LongDocuments::Windows),
];

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

impl Shape {
    pub(super) fn members(self) -> Members {
        let known: &'static [&'static str] = match self {
            Self::Score => &KNOWN_OF_SCORE,
            Self::Nim => &KNOWN_OF_NIM,
            Self::Jina | Self::Voyage | Self::Cohere | Self::Tei => &KNOWN,
        };
        Members { known, ..MEMBERS }
    }
}

/// The options of a request, in addition to the scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
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

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    query: Option<&'a RawValue>,
    documents: Option<&'a RawValue>,
    /// vLLM's names of query and documents.
    text_1: Option<&'a RawValue>,
    text_2: Option<&'a RawValue>,
    queries: Option<&'a RawValue>,
    /// NVIDIA's name of documents.
    passages: Option<&'a RawValue>,
    texts: Option<&'a RawValue>,
    top_n: Option<&'a RawValue>,
    /// Voyage's name of it.
    top_k: Option<&'a RawValue>,
    return_documents: Option<&'a RawValue>,
    return_text: Option<&'a RawValue>,
    raw_scores: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    /// Voyage's name of it.
    truncation: Option<&'a RawValue>,
    truncation_direction: Option<&'a RawValue>,
    max_tokens_per_doc: Option<&'a RawValue>,
    long_documents: Option<&'a RawValue>,
}

/// A text, as itself or as Jina writes it.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Text {
    Plain(String),
    Object { text: String },
}

impl From<Text> for Input {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) | Text::Object { text } => Self::Text(text),
        }
    }
}

/// Texts are text-embeddings-inference's, documents everybody else's.
pub(super) fn shape(bytes: &[u8]) -> Shape {
    #[derive(Deserialize)]
    struct Names<'a> {
        #[serde(borrow)]
        texts: Option<&'a RawValue>,
    }
    match object(bytes, "") {
        Ok(Names { texts: Some(_) }) => Shape::Tei,
        _ => Shape::Jina,
    }
}

/// Reads a body: the query is the first input of the request, the documents are the rest, at most `max`.
pub(super) fn request(
    bytes: &[u8],
    shape: Shape,
    max: usize,
) -> Result<(EmbedRequest, Asked), Error> {
    let mut fields: Fields<'_> = object(bytes, "query and documents")?;
    if matches!(shape, Shape::Score | Shape::Nim) {
        // They have no other members.
        fields = Fields {
            top_n: None,
            top_k: None,
            raw_scores: None,
            truncation: None,
            truncation_direction: None,
            max_tokens_per_doc: None,
            long_documents: None,
            truncate: fields.truncate.filter(|_| shape == Shape::Nim),
            ..fields
        };
    }
    let (name, given, with_documents) = match shape {
        Shape::Tei => ("texts", fields.texts, ("return_text", fields.return_text)),
        Shape::Jina | Shape::Voyage | Shape::Cohere => (
            "documents",
            fields.documents,
            ("return_documents", fields.return_documents),
        ),
        Shape::Score => match fields.text_1 {
            Some(_) => ("text_2", fields.text_2, ("return_documents", None)),
            None => ("documents", fields.documents, ("return_documents", None)),
        },
        Shape::Nim => ("passages", fields.passages, ("return_documents", None)),
    };
    let query = match (shape, fields.text_1) {
        (Shape::Score, Some(_)) => ("text_1", fields.text_1),
        (Shape::Score, None) => ("queries", fields.queries),
        _ => ("query", fields.query),
    };
    let query = query_text(query.0, query.1)?;
    let documents = texts(name, given, max)?;
    let inputs = std::iter::once(Input::from(query)).chain(documents);
    let request = EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        token_ids: TokenIds::Reject,
        truncate: match shape {
            Shape::Nim => one_of("truncate", fields.truncate, &NIM_TRUNCATES)?,
            _ => flag("truncate", fields.truncate)?.or(flag("truncation", fields.truncation)?),
        },
        side: truncation_direction(fields.truncation_direction)?,
        ..EmbedRequest::new(inputs.collect())
    };
    let is_voyages = fields.top_k.is_some() || fields.truncation.is_some();
    let asked = Asked {
        shape: match shape {
            Shape::Jina if is_voyages => Shape::Voyage,
            shape => shape,
        },
        top_n: count("top_n", fields.top_n)?.or(count("top_k", fields.top_k)?),
        with_documents: flag(with_documents.0, with_documents.1)?.unwrap_or(false),
        raw_scores: flag("raw_scores", fields.raw_scores)?.unwrap_or(false),
        length: Length {
            long_documents: one_of("long_documents", fields.long_documents, &LONG_DOCUMENTS)?,
            max_tokens: count("max_tokens_per_doc", fields.max_tokens_per_doc)?,
        },
    };
    Ok((request, asked))
}

/// One text.
fn query_text(name: &'static str, raw: Option<&RawValue>) -> Result<Text, Error> {
    let expected = "a string, or an object with text";
    let text = typed(name, raw, expected)?;
    text.ok_or_else(|| Error::invalid(name, format!("{name} is missing: {expected}")))
}

/// RAGFlow's Xinference client writes booleans as strings.
fn flag(name: &'static str, raw: Option<&RawValue>) -> Result<Option<bool>, Error> {
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true" | "\"true\"" | "\"True\"") => Ok(Some(true)),
        Some("false" | "\"false\"" | "\"False\"" | "\"\"") => Ok(Some(false)),
        Some(other) => Err(wrong(name, "true or false", other)),
    }
}
