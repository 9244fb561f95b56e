//! One member of a body: reads it as the type that its struct says, and says what it should be where it is something else.
//! And the types that members have in many dialects.

use std::{borrow::Cow, fmt};

use embedgate_request::Error;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, Error as _, Expected, IntoDeserializer, Visitor,
        value::{CowStrDeserializer, StringDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{de::StrRead, error::Category, value::RawValue};

use super::{json::without_place, object::Object};

/// A list of a few words, as JSON: longer ones repeat themselves, and would take many times their length.
const MOST_WORDS_BYTES: usize = 1 << 10;
/// The name by which [`Raw`] asks for a member's text.
const RAW: &str = "embedgate::Raw";

type Json<'de> = serde_json::Deserializer<StrRead<'de>>;

/// The value of a member, which is read by its type. Null counts as absent where the type is an `Option`.
pub(super) struct Member<'b, 'de> {
    name: &'static str,
    json: &'de str,
    /// Takes the error.
    wrong: &'b mut Option<Error>,
}

impl<'b, 'de> Member<'b, 'de> {
    pub(super) fn new(
        name: &'static str,
        json: &'de RawValue,
        wrong: &'b mut Option<Error>,
    ) -> Self {
        Self {
            name,
            json: json.get(),
            wrong,
        }
    }

    /// Reads it, or says what it should be.
    fn read<T>(
        self,
        expected: impl FnOnce() -> String,
        read: impl FnOnce(&mut Json<'de>) -> Result<T, serde_json::Error>,
    ) -> Result<T, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(self.json);
        read(&mut json).inspect_err(|error| {
            let say = || match error.classify() {
                Category::Data => wrong(self.name, &expected(), self.json),
                // Syntax within a string, such as a lone surrogate.
                _ => no_json(self.name, error),
            };
            self.wrong.get_or_insert_with(say);
        })
    }
}

/// Says what a member should be.
pub(super) fn wrong(name: &'static str, expected: &str, got: &str) -> Error {
    Error::invalid(name, format!("{name} {}", must_be(expected, got)))
}

fn must_be(expected: &str, got: &str) -> String {
    let mut shown: String = got.chars().take(40).collect();
    if shown.len() < got.len() {
        shown.push_str("...");
    }
    format!("must be {expected}, got {shown}")
}

/// Says that a member's text is no JSON.
pub(super) fn no_json(name: &'static str, error: &serde_json::Error) -> Error {
    let message = error.to_string();
    let message = format!("{name} is not valid JSON: {}", without_place(&message));
    Error::invalid(name, message)
}

impl<'de> Deserializer<'de> for Member<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.json {
            "null" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.read(
            || "true or false".to_owned(),
            |json| json.deserialize_bool(visitor),
        )
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.read(
            || "a string".to_owned(),
            |json| json.deserialize_string(visitor),
        )
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.read(
            || quoted(variants, " or "),
            |json| {
                let word: Cow<'de, str> = Cow::deserialize(json)?;
                let word: CowStrDeserializer<'_, serde_json::Error> = word.into_deserializer();
                visitor.visit_enum(word)
            },
        )
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let expected = (&visitor as &dyn Expected).to_string();
        let mut inner = None;
        let read = |json: &mut Json<'de>| {
            Object::inner(json, &mut inner).deserialize_struct(name, fields, visitor)
        };
        let mut outer = None;
        let member = Member {
            wrong: &mut outer,
            ..self
        };
        let read = member.read(|| expected, read);
        // The error of a member within it says more.
        *self.wrong = inner.or(outer);
        read
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match name {
            RAW => visitor.visit_borrowed_str(self.json),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let expected = (&visitor as &dyn Expected).to_string();
        self.read(|| expected, |json| json.deserialize_any(visitor))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

/// Words in quotes.
fn quoted(words: &[&str], between: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    quoted.join(between)
}

/// The text of a member, which is read later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a>(pub(super) &'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member of a body")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Raw<'de>, E> {
                Ok(Raw(text))
            }
        }
        deserializer.deserialize_newtype_struct(RAW, Text)
    }
}

/// A number of things; 0 counts as absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(Option<usize>);

impl Count {
    /// The number, where there is one.
    pub(super) fn get(count: Option<Self>) -> Option<usize> {
        count.and_then(|Self(n)| n)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeNumber::Count).map(Self)
    }
}

/// The most tokens of an input; -1 is as many as the model takes, and 0 counts as absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxTokens(Option<usize>);

impl MaxTokens {
    /// The number, where there is one.
    pub(super) fn get(given: Option<Self>) -> Option<usize> {
        given.and_then(|Self(n)| n)
    }
}

impl<'de> Deserialize<'de> for MaxTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(WholeNumber::OrMinusOne)
            .map(Self)
    }
}

/// Reads a whole number; none of 0, and of -1 where that is taken.
#[derive(Clone, Copy)]
enum WholeNumber {
    Count,
    OrMinusOne,
}

impl Visitor<'_> for WholeNumber {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest is that of the document, and of other languages.
        let numbers = "a whole number from 1 to 9223372036854775807";
        match self {
            Self::Count => f.write_str(numbers),
            Self::OrMinusOne => write!(f, "-1 or {numbers}"),
        }
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Option<usize>, E> {
        let n = i64::try_from(n).map_err(E::custom)?;
        let n = usize::try_from(n).map_err(E::custom)?;
        Ok(Some(n).filter(|n| *n > 0))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Option<usize>, E> {
        match (self, n) {
            (Self::OrMinusOne, -1) => Ok(None),
            _ => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
        }
    }
}

/// A string, where the member is one; clients of other servers send anything.
#[derive(Clone, Debug)]
pub(super) struct Lenient(Option<String>);

impl Lenient {
    /// The string, where there is one.
    pub(super) fn get(given: Option<Self>) -> Option<String> {
        given.and_then(|Self(text)| text)
    }
}

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw(json) = Raw::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(json).ok()))
    }
}

/// A list of words, each of which is a variant of an enum.
#[derive(Clone, Debug)]
pub(super) struct Words<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Words<T> {
    /// The words that there are, for errors.
    pub(super) fn expected() -> String {
        let variants = variants_of::<T>();
        match quoted(variants, ", ").rsplit_once(", ") {
            Some((most, last)) => format!("a list of {most} and {last}"),
            None => format!("a list of {}", quoted(variants, "")),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Words<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw(json) = Raw::deserialize(deserializer)?;
        let bad = |got: &str| D::Error::custom(must_be(&Self::expected(), got));
        if json.len() > MOST_WORDS_BYTES {
            return Err(bad(json));
        }
        let words: Vec<String> = serde_json::from_str(json).map_err(|_| bad(json))?;
        let word = |word: String| {
            let deserializer: StringDeserializer<de::value::Error> =
                word.clone().into_deserializer();
            T::deserialize(deserializer).map_err(|_| bad(&format!("{word:?}")))
        };
        words
            .into_iter()
            .map(word)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The names of an enum's variants, which its derived `Deserialize` knows.
fn variants_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'b>(&'b mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = de::value::Error;

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(Self::Error::custom("there is no value"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("there is no value"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }
    let mut variants: &[&str] = &[];
    // It has no value to give: the names are all that is asked.
    drop(T::deserialize(Probe(&mut variants)));
    variants
}
