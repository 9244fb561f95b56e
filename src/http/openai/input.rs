//! The four forms of `input`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use crate::request::Input;

/// What the request's `input` holds: one input for a string or a list of ids, several for a list of those.
pub(super) struct Inputs(pub(super) Vec<Input>);

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor).map(Self)
    }
}

struct WholeVisitor;

impl<'de> Visitor<'de> for WholeVisitor {
    type Value = Vec<Input>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "input to be a string, a list of strings, a list of token ids, or a list of such lists",
        )
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![Input::Text(text.into())])
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(vec![Input::Text(text)])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut inputs = Vec::new();
        let mut ids = Vec::new();
        let mut i = 0;
        while let Some(entry) = list.next_element().map_err(|e| at(i, e))? {
            match entry {
                Entry::Text(text) if ids.is_empty() && inputs.iter().all(is_text) => {
                    inputs.push(Input::Text(text))
                }
                Entry::Ids(list) if ids.is_empty() && !inputs.first().is_some_and(is_text) => {
                    inputs.push(Input::Tokens(list));
                }
                Entry::Id(id) if inputs.is_empty() => ids.push(id),
                other => {
                    let first = if !ids.is_empty() {
                        "a token id"
                    } else if inputs.iter().all(is_text) {
                        "a string"
                    } else {
                        "a list"
                    };
                    return Err(at(
                        i,
                        de::Error::custom(format!(
                            "{}, while the first entry is {first}",
                            other.kind()
                        )),
                    ));
                }
            }
            i += 1;
        }
        if i == 0 {
            return Err(de::Error::custom(
                "input must hold at least one entry, got an empty list",
            ));
        }
        if !ids.is_empty() {
            inputs.push(Input::Tokens(ids));
        }
        Ok(inputs)
    }
}

fn is_text(input: &Input) -> bool {
    matches!(input, Input::Text(_))
}

fn at<E: de::Error>(i: usize, error: E) -> E {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    E::custom(format!("input[{i}]: {message}"))
}

/// One entry of a list.
enum Entry {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl Entry {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "is a string",
            Self::Id(_) => "is a token id",
            Self::Ids(_) => "is a list",
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Entry, E> {
        Ok(Entry::Text(text))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Entry, E> {
        token_id(id).map(Entry::Id)
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Entry, E> {
        Err(E::custom(format!("token id {id} is below 0")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entry, A::Error> {
        let mut ids = Vec::new();
        while let Some(TokenId(id)) = list.next_element()? {
            ids.push(id);
        }
        Ok(Entry::Ids(ids))
    }
}

struct TokenId(u32);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenIdVisitor).map(Self)
    }
}

struct TokenIdVisitor;

impl Visitor<'_> for TokenIdVisitor {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token id, a whole number")
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<u32, E> {
        token_id(id)
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<u32, E> {
        Err(E::custom(format!("token id {id} is below 0")))
    }
}

fn token_id<E: de::Error>(id: u64) -> Result<u32, E> {
    u32::try_from(id).map_err(|_| E::custom(format!("token id {id} is too large")))
}
