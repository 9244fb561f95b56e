//! Reads the JSON object of a body into a struct of its members, in one pass. Every error names its member. Members that the
//! struct does not have are compared with those of other servers, counted, and kept for plugins.
//!
//! The struct says all about its members once: names, types, and their description in the `OpenAPI` document. Its
//! `Deserialize` is derived; this file stands between it and `serde_json`, so that each member is read apart.

use std::borrow::Cow;

use embedgate_request::{Error, ErrorKind};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{de::StrRead, value::RawValue};

use super::{
    foreign::{Foreign, is_foreign},
    member::Member,
};

/// Most members without a meaning here that plugins are shown. The next constant limits their bytes.
const MOST_EXTRA: usize = 64;
const MOST_EXTRA_BYTES: usize = 64 << 10;

/// A struct of the members that the bodies of a route have.
pub(super) trait Members<'a>: Deserialize<'a> {
    /// The members that a body must have, for the error of a body that is no object.
    const NEEDED: &'static str;
    /// The members that other servers document.
    const FOREIGN: &'static [Foreign] = &[];
}

/// A body that is to be read.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    /// The most entries of a list of inputs.
    pub(super) max_inputs: usize,
    /// The members that mean nothing here; one more than plugins are shown at most: more would take memory that nobody counts.
    others: Vec<(String, &'a RawValue)>,
    /// The number of members that nobody documents.
    pub(super) n_ignored: usize,
}

impl<'a> Source<'a> {
    /// A body, of which a list of inputs may hold so many.
    pub(super) fn new(bytes: &'a [u8], max_inputs: usize) -> Self {
        Self {
            bytes,
            max_inputs,
            others: Vec::new(),
            n_ignored: 0,
        }
    }

    /// Returns true when the body is an object with this member, and not null there.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut found = false;
        let Ok(text) = object_text(self.bytes, "") else {
            return false;
        };
        let look = Look {
            name,
            found: &mut found,
        };
        let looked = serde_json::Deserializer::from_str(text).deserialize_map(look);
        looked.is_ok() && found
    }

    /// Reads the members of the body.
    ///
    /// # Errors
    /// `InvalidRequest` where the body is no JSON object; where a member has another type than its own, which the error names;
    /// where a member of another server asks for what is not done.
    pub(super) fn members<T: Members<'a>>(&mut self) -> Result<T, Error> {
        let text = object_text(self.bytes, T::NEEDED)?;
        let mut others = Others::of(T::FOREIGN);
        let mut wrong = None;
        let mut json = serde_json::Deserializer::from_str(text);
        let read = T::deserialize(Object {
            json: &mut json,
            others: Some(&mut others),
            wrong: &mut wrong,
        });
        if let Some(error) = wrong {
            // A body that is no JSON is that first, wherever it is.
            serde_json::from_str::<IgnoredAny>(text).map_err(no_json)?;
            return Err(error);
        }
        let members = read.map_err(no_json)?;
        json.end().map_err(no_json)?;
        if let Some(error) = others.refused {
            return Err(error);
        }
        self.n_ignored += others.n_ignored;
        self.others = others.kept;
        Ok(members)
    }

    /// The members that mean nothing here, as JSON text; nothing when they exceed a limit.
    pub(super) fn take_extra(&mut self) -> Vec<(String, String)> {
        let others = std::mem::take(&mut self.others);
        let bytes = |(name, json): &(String, &RawValue)| name.len() + json.get().len();
        let total: usize = others.iter().map(bytes).sum();
        if others.len() > MOST_EXTRA || total > MOST_EXTRA_BYTES {
            return Vec::new();
        }
        let owned = |(name, json): (String, &RawValue)| (name, json.get().to_owned());
        others.into_iter().map(owned).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn no_json(error: serde_json::Error) -> Error {
    let message = format!("the body is not valid JSON: {error}");
    Error::new(ErrorKind::InvalidRequest, message)
}

/// The text of a body that begins as an object does.
fn object_text<'a>(bytes: &'a [u8], needed: &str) -> Result<&'a str, Error> {
    let bad = |message: String| Error::new(ErrorKind::InvalidRequest, message);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let place = e.valid_up_to();
        bad(format!("the body is not valid UTF-8 at byte {place}"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        Some('{') => Ok(text),
        None => Err(bad(format!(
            "the body is empty: expected a JSON object with {needed}"
        ))),
        Some(_) => Err(bad(format!(
            "the body is not a JSON object: expected one with {needed}"
        ))),
    }
}

/// The members of a body that its struct does not have.
struct Others<'a> {
    foreign: &'static [Foreign],
    kept: Vec<(String, &'a RawValue)>,
    n_ignored: usize,
    refused: Option<Error>,
}

impl<'a> Others<'a> {
    fn of(foreign: &'static [Foreign]) -> Self {
        Self {
            foreign,
            kept: Vec::new(),
            n_ignored: 0,
            refused: None,
        }
    }

    fn take(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        match is_foreign(self.foreign, &name, value) {
            Ok(is_foreign) => self.n_ignored += usize::from(!is_foreign),
            Err(error) => self.refused = self.refused.take().or(Some(error)),
        }
        if self.kept.len() <= MOST_EXTRA {
            self.kept.push((name.into_owned(), value));
        }
    }
}

/// An object, as a struct's `Deserialize` asks for it.
pub(super) struct Object<'b, 'de> {
    json: &'b mut serde_json::Deserializer<StrRead<'de>>,
    /// Takes the members that the struct does not have; none: they are passed over.
    others: Option<&'b mut Others<'de>>,
    /// Takes the error of a member, which `serde_json` has no room for.
    wrong: &'b mut Option<Error>,
}

impl<'b, 'de> Object<'b, 'de> {
    /// An object within a body, whose other members are passed over.
    pub(super) fn inner(
        json: &'b mut serde_json::Deserializer<StrRead<'de>>,
        wrong: &'b mut Option<Error>,
    ) -> Self {
        Self {
            json,
            others: None,
            wrong,
        }
    }
}

impl<'de> Deserializer<'de> for Object<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_map(Reader {
            visitor,
            fields,
            others: self.others,
            wrong: self.wrong,
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.json.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The visitor of a struct, for which members are read apart.
struct Reader<'b, 'de, V> {
    visitor: V,
    fields: &'static [&'static str],
    others: Option<&'b mut Others<'de>>,
    wrong: &'b mut Option<Error>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Reader<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, json: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(KnownMembers {
            json,
            fields: self.fields,
            others: self.others,
            wrong: self.wrong,
            name: "",
        })
    }
}

/// The members of an object that its struct has.
struct KnownMembers<'b, 'de, A> {
    json: A,
    fields: &'static [&'static str],
    others: Option<&'b mut Others<'de>>,
    wrong: &'b mut Option<Error>,
    /// The member whose value is next.
    name: &'static str,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for KnownMembers<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.json.next_key()? {
            if let Some(known) = self.fields.iter().find(|known| **known == name) {
                self.name = known;
                let name: StrDeserializer<'_, A::Error> = known.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            match &mut self.others {
                Some(others) => others.take(name, self.json.next_value()?),
                None => drop(self.json.next_value::<IgnoredAny>()?),
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let raw: &'de RawValue = self.json.next_value()?;
        let member = Member::new(self.name, raw, self.wrong);
        seed.deserialize(member).map_err(|error| {
            // A type's own words about its value.
            let say = || Error::invalid(self.name, format!("{} {error}", self.name));
            self.wrong.get_or_insert_with(say);
            A::Error::custom(error)
        })
    }
}

/// A name without a copy, where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Looks for one member.
struct Look<'b> {
    name: &'b str,
    found: &'b mut bool,
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut json: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = json.next_key()? {
            let value: &'de RawValue = json.next_value()?;
            *self.found |= name == self.name && value.get() != "null";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            foreign::OF_EMBEDDINGS,
            member::{Count, Raw},
        },
        *,
    };

    #[derive(Debug, Deserialize)]
    struct Body<'a> {
        name: Option<String>,
        n: Option<Count>,
        #[serde(borrow)]
        input: Option<Raw<'a>>,
    }

    impl<'a> Members<'a> for Body<'a> {
        const NEEDED: &'static str = "input";
        const FOREIGN: &'static [Foreign] = OF_EMBEDDINGS;
    }

    fn n_ignored(body: &str) -> Result<usize, String> {
        let mut source = Source::new(body.as_bytes(), 1);
        let read = source.members::<Body<'_>>();
        read.map(|_| source.n_ignored).map_err(|e| e.to_string())
    }

    #[test]
    fn members_are_read_by_their_types_and_null_is_absent() {
        let mut source = Source::new(br#"{"name":null,"n":0,"input":[1,"a"],"x":{"y":[1]}}"#, 1);
        let body: Body<'_> = source.members().unwrap();
        assert_eq!((body.name, Count::get(body.n)), (None, None));
        assert_eq!(body.input.map(|Raw(json)| json), Some("[1,\"a\"]"));
        assert_eq!(source.take_extra(), [("x".into(), r#"{"y":[1]}"#.into())]);
    }

    #[test]
    fn a_wrong_member_is_named_with_what_it_should_be() {
        for (body, expected) in [
            (r#"{"name":5}"#, "name must be a string, got 5"),
            (
                r#"{"n":-1}"#,
                "n must be a whole number from 1 to 9223372036854775807, got -1",
            ),
            (
                r#"{"n":"a","input"}"#,
                "the body is not valid JSON: expected `:` at line 1 column 17",
            ),
            (
                r#"{"name":"a"} b"#,
                "the body is not valid JSON: trailing characters at line 1 column 14",
            ),
            (
                r#"{"name":"a","name":"b"}"#,
                "the body is not valid JSON: duplicate field `name` at line 1 column 18",
            ),
        ] {
            assert_eq!(n_ignored(body), Err(expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_member_is_found_behind_any_number_of_others() {
        let junk: String = (0..1000).map(|i| format!("\"x{i}\":0,")).collect();
        assert_eq!(n_ignored(&format!("{{{junk}\"input\":\"a\"}}")), Ok(1000));
        let error = n_ignored(&format!("{{{junk}\"output_dtype\":\"int8\"}}")).unwrap_err();
        assert!(error.contains("output_dtype"), "{error}");
    }
}
