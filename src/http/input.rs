//! The four forms of `input`.

use std::fmt;

use embedgate_request::{Error, Input};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::error::Category;

use super::{
    dialect::EMPTY,
    json::without_place,
    member::{Raw, no_json},
};

/// Reads the request's `input`: one input for a string or a list of ids, several for a list of those.
///
/// Of a list with more than `max` entries the rest is counted and not kept, so that a small body cannot become a large
/// amount of memory.
pub(super) struct Inputs {
    /// The member of the body, for messages.
    pub(super) name: &'static str,
    pub(super) max: usize,
    /// Which entries may stand beside each other.
    pub(super) mix: Mix,
}

/// Reads inputs in any of their forms. An error says itself which entry is wrong.
pub(super) fn read(form: Inputs, raw: Option<Raw<'_>>) -> Result<Vec<Input>, Error> {
    let name = form.name;
    let Some(Raw(json)) = raw else {
        let message =
            format!("{name} is missing: a string, a list of strings, or lists of token ids");
        return Err(Error::invalid(name, message));
    };
    let read = form.deserialize(&mut serde_json::Deserializer::from_str(json));
    read.map_err(|e| match e.classify() {
        Category::Data => {
            let message = e.to_string();
            let error = Error::invalid(name, without_place(&message));
            if is_empty_list(json) {
                return error.with_code(EMPTY);
            }
            error
        }
        _ => no_json(name, &e),
    })
}

/// Reads texts alone, at most `max` of them.
pub(super) fn texts(
    name: &'static str,
    raw: Option<Raw<'_>>,
    max: usize,
) -> Result<Vec<Input>, Error> {
    let list = "a list of strings, or of objects with text";
    if raw.is_none() {
        return Err(Error::invalid(name, format!("{name} is missing: {list}")));
    }
    let all = read(Inputs::alike(name, max), raw)?;
    if all.iter().any(|input| matches!(input, Input::Tokens(_))) {
        let message = format!("{name} must be {list}, not token ids");
        return Err(Error::invalid(name, message));
    }
    Ok(all)
}

fn is_empty_list(json: &str) -> bool {
    let inner = json
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

/// Which entries of a list may stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    /// Strings beside strings, lists of token ids beside such lists.
    Alike,
    /// Strings and lists of token ids in any order.
    Any,
}

impl<'de> DeserializeSeed<'de> for Inputs {
    type Value = Vec<Input>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Input>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inputs {
    type Value = Vec<Input>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to be a string, a list of strings, a list of token ids, or a list of such lists",
            self.name
        )
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<Input>, E> {
        Ok(vec![Input::Text(text.into())])
    }

    fn visit_string<E>(self, text: String) -> Result<Vec<Input>, E> {
        Ok(vec![Input::Text(text)])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Input>, A::Error> {
        let Some(first) = self.next(&mut list, 0)? else {
            return Err(de::Error::custom(format!(
                "{} must hold at least one entry, got an empty list",
                self.name
            )));
        };
        match first {
            Entry::Id(id) => Ok(vec![Input::Tokens(self.ids(id, list)?)]),
            first => self.several(first, list),
        }
    }
}

impl Inputs {
    /// Makes the reader that most dialects use: all entries are alike.
    pub(super) fn alike(name: &'static str, max: usize) -> Self {
        let mix = Mix::Alike;
        Self { name, max, mix }
    }

    /// The rest of a list that began with a token id.
    fn ids<'de, A: SeqAccess<'de>>(&self, first: u32, mut list: A) -> Result<Vec<u32>, A::Error> {
        let mut ids = vec![first];
        while let Some(entry) = self.next(&mut list, ids.len())? {
            match entry {
                Entry::Id(id) => ids.push(id),
                other => return Err(self.mixed(ids.len(), &other, "a token id")),
            }
        }
        Ok(ids)
    }

    /// The rest of a list that began with a string or a list.
    fn several<'de, A: SeqAccess<'de>>(
        &self,
        first: Entry,
        mut list: A,
    ) -> Result<Vec<Input>, A::Error> {
        let of_texts = matches!(first, Entry::Text(_));
        let takes = |is_text: bool| is_text == of_texts || self.mix == Mix::Any;
        let mut inputs = Vec::from_iter(first.into_input());
        while inputs.len() < self.max {
            let Some(entry) = self.next(&mut list, inputs.len())? else {
                return Ok(inputs);
            };
            match entry {
                Entry::Text(text) if takes(true) => inputs.push(Input::Text(text)),
                Entry::Ids(ids) if takes(false) => inputs.push(Input::Tokens(ids)),
                other => {
                    let first = if of_texts { "a string" } else { "a list" };
                    return Err(self.mixed(inputs.len(), &other, first));
                }
            }
        }
        let mut n = inputs.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            n += 1;
        }
        if n > self.max {
            return Err(de::Error::custom(Error::too_many(self.name, n, self.max)));
        }
        Ok(inputs)
    }

    fn next<'de, A: SeqAccess<'de>>(
        &self,
        list: &mut A,
        i: usize,
    ) -> Result<Option<Entry>, A::Error> {
        list.next_element().map_err(|e| self.at(i, &e.to_string()))
    }

    fn mixed<E: de::Error>(&self, i: usize, entry: &Entry, first: &str) -> E {
        let kind = entry.kind();
        self.at(i, &format!("{kind}, while the first entry is {first}"))
    }

    fn at<E: de::Error>(&self, i: usize, message: &str) -> E {
        let message = without_place(message);
        E::custom(format!("{}[{i}]: {message}", self.name))
    }
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

    /// A token id alone is no input.
    fn into_input(self) -> Option<Input> {
        match self {
            Self::Text(text) => Some(Input::Text(text)),
            Self::Ids(ids) => Some(Input::Tokens(ids)),
            Self::Id(_) => None,
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
        f.write_str("a string, a token id, a list of token ids, or {\"text\": \"...\"}")
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

    /// Jina's form of a text: `{"text": "..."}`.
    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut text = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != "text" {
                return Err(de::Error::custom(format!(
                    "has a member {name:?}: only {{\"text\": \"...\"}} is taken"
                )));
            }
            text = Some(map.next_value()?);
        }
        text.map(Entry::Text)
            .ok_or_else(|| de::Error::custom("has no member \"text\""))
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
