//! The bodies of the routes that rank: one struct for each API, and the types that their members have.

use std::{borrow::Cow, fmt};

use embedgate_request::LongDocuments;
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
    member::{Count, Raw},
    object::Members,
    openapi::lists::{self, Texts, one_of},
    tei::Direction,
};

/// The form of a text, for errors.
pub(super) const TEXT: &str = "a string, or an object with text";

/// The body of Jina, of Cohere, and, where it has members of its own, of Voyage.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct RerankRequest<'a> {
    pub(super) model: Option<String>,
    #[schema(value_type = lists::Text)]
    pub(super) query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    pub(super) documents: Option<Raw<'a>>,
    /// So many of the best; all where nothing is said.
    #[schema(value_type = Option<u64>, minimum = 0)]
    pub(super) top_n: Option<Count>,
    /// Voyage's name of top_n. With it, or with truncation, the answer is as Voyage writes it.
    #[schema(value_type = Option<u64>, minimum = 0)]
    pub(super) top_k: Option<Count>,
    /// true: the answer holds the documents.
    pub(super) return_documents: Option<Flag>,
    /// Scores as the model gives them.
    pub(super) raw_scores: Option<Flag>,
    /// false: over-long documents are refused.
    pub(super) truncate: Option<Flag>,
    /// Voyage's name of truncate.
    pub(super) truncation: Option<Flag>,
    pub(super) truncation_direction: Option<Direction>,
    /// Only so many tokens of each document count; all where nothing is said.
    #[schema(value_type = Option<u64>, minimum = 0)]
    pub(super) max_tokens_per_doc: Option<Count>,
    /// The treatment of documents that are longer than the model takes.
    pub(super) long_documents: Option<WhereLong>,
}

impl<'a> Members<'a> for RerankRequest<'a> {
    const NEEDED: &'static str = "query and documents";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of text-embeddings-inference.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiRerankRequest<'a> {
    pub(super) model: Option<String>,
    #[schema(value_type = lists::Text)]
    pub(super) query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    pub(super) texts: Option<Raw<'a>>,
    /// Scores as the model gives them.
    pub(super) raw_scores: Option<Flag>,
    /// true: the answer holds the texts.
    pub(super) return_text: Option<Flag>,
    pub(super) truncate: Option<Flag>,
    pub(super) truncation_direction: Option<Direction>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    pub(super) top_n: Option<Count>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    pub(super) max_tokens_per_doc: Option<Count>,
    pub(super) long_documents: Option<WhereLong>,
}

impl<'a> Members<'a> for TeiRerankRequest<'a> {
    const NEEDED: &'static str = "query and texts";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of vLLM's scores.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct ScoreTexts<'a> {
    pub(super) model: Option<String>,
    /// One text, also as an object with text.
    #[schema(value_type = lists::Text)]
    pub(super) text_1: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    pub(super) text_2: Option<Raw<'a>>,
}

impl<'a> Members<'a> for ScoreTexts<'a> {
    const NEEDED: &'static str = "text_1 and text_2";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of vLLM's scores, under newer names.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct ScoreQueries<'a> {
    pub(super) model: Option<String>,
    /// One text, also as an object with text.
    #[schema(value_type = lists::Text)]
    pub(super) queries: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    pub(super) documents: Option<Raw<'a>>,
}

impl<'a> Members<'a> for ScoreQueries<'a> {
    const NEEDED: &'static str = "queries and documents";
    const FOREIGN: &'static [Foreign] = OF_RERANK;
}

/// The body of NVIDIA's rankings.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct RankingRequest<'a> {
    pub(super) model: Option<String>,
    #[schema(value_type = lists::Text)]
    pub(super) query: Option<Text>,
    #[serde(borrow)]
    #[schema(value_type = RerankDocuments)]
    pub(super) passages: Option<Raw<'a>>,
    /// END: over-long passages are cut; NONE: they are refused.
    pub(super) truncate: Option<RankingTruncate>,
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
pub(super) enum RankingTruncate {
    End,
    None,
}

/// Cut them, or refuse them as `truncate` says; or score them in windows that overlap, of which the best one counts.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[schema(as = LongDocuments)]
#[serde(rename_all = "lowercase")]
pub(super) enum WhereLong {
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

/// A text, as itself or as Jina writes it: `{"text": "..."}`.
pub(super) struct Text(pub(super) String);

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
pub(super) struct Flag(bool);

impl Flag {
    const TRUE: [&'static str; 2] = ["true", "True"];
    const FALSE: [&'static str; 3] = ["false", "False", ""];

    /// The value, where there is one.
    pub(super) fn get(given: Option<Self>) -> Option<bool> {
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
