//! The forms of lists of texts and of token ids, in any dialect. Bodies have them as text, which `http::input` reads.

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, schema::SchemaType},
};

/// One text, several, or tokens of them: a list of ids is one input.
#[derive(ToSchema)]
#[schema(as = Inputs)]
#[serde(untagged)]
pub(in crate::http) enum Inputs {
    Text(String),
    Texts(#[schema(inline)] Texts),
    Ids(#[schema(inline)] Ids),
    Lists(#[schema(inline)] IdLists),
}

/// A list that is not empty. Always written in its place, and never by its name.
pub(in crate::http) struct NonEmpty<T>(Vec<T>);

/// Texts and token ids beside each other.
pub(in crate::http) type Mixed = NonEmpty<TextOrIds>;

/// A text, or its token ids.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum TextOrIds {
    Text(#[schema(inline)] Text),
    Ids(#[schema(inline)] Ids),
}

/// Several texts.
pub(in crate::http) type Texts = NonEmpty<Text>;
/// One text's token ids.
pub(in crate::http) type Ids = NonEmpty<u32>;

/// Several texts' token ids.
pub(in crate::http) struct IdLists;

/// Several texts' token ids, where a text may have none.
pub(in crate::http) struct AnyIdLists;

impl<T: ToSchema> PartialSchema for NonEmpty<T> {
    fn schema() -> RefOr<Schema> {
        non_empty(T::schema())
    }
}

impl PartialSchema for IdLists {
    fn schema() -> RefOr<Schema> {
        non_empty(Ids::schema())
    }
}

impl ToSchema for IdLists {}

impl PartialSchema for AnyIdLists {
    fn schema() -> RefOr<Schema> {
        non_empty(Vec::<u32>::schema())
    }
}

impl ToSchema for AnyIdLists {}

fn non_empty(items: RefOr<Schema>) -> RefOr<Schema> {
    let list = ArrayBuilder::new().items(items).min_items(Some(1));
    list.build().into()
}

impl<T: ToSchema> ToSchema for NonEmpty<T> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

/// A text, as itself or as Jina writes it.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum Text {
    Plain(String),
    Object(#[schema(inline)] TextObject),
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TextObject {
    text: String,
}

/// One of several values of any type.
pub(in crate::http) fn one_of(values: impl IntoIterator<Item = Value>) -> RefOr<Schema> {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    any.enum_values(Some(values)).build().into()
}
