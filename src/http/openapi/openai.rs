//! Bodies of `/v1/embeddings`.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, schema::SchemaType},
};

use super::Operation;

pub(in crate::http) fn embeddings() -> Operation {
    Operation::post::<EmbeddingsRequest, EmbeddingsResponse>(
        "Embed texts",
        "As OpenAI's; with `outputs`, lexical weights and token vectors too, from one pass through the model. Also \
         at `/embeddings`, `/v1/v1/embeddings` and `/v1-openai/embeddings`.",
    )
    .tried_with(r#"{"input": ["The food was good.", "向量检索"]}"#)
}

#[derive(ToSchema)]
pub(super) struct EmbeddingsRequest {
    /// The model's name or alias.
    model: Option<String>,
    input: Inputs,
    /// Numbers, or base64 of little-endian f32.
    encoding_format: Option<Encoding>,
    /// Jina's name of encoding_format, with two forms more.
    embedding_type: Option<EmbeddingType>,
    /// Cut to so many dimensions, and made length 1 again.
    #[schema(minimum = 0)]
    dimensions: Option<u64>,
    /// Voyage's name of dimensions.
    #[schema(minimum = 0)]
    output_dimension: Option<u64>,
    /// true or a side: over-long inputs are cut, on that side. Else they are refused.
    truncate: Option<Truncate>,
    /// Voyage's name of truncate.
    truncation: Option<Truncate>,
    /// The side on which over-long inputs are cut; the model's own where nothing is said.
    truncation_side: Option<TruncationSide>,
    /// Cuts inputs to so many tokens; special tokens stay. -1: to as many as the model takes.
    #[schema(minimum = -1)]
    truncate_prompt_tokens: Option<i64>,
    /// false: vectors as they come from the model.
    normalized: Option<bool>,
    /// vLLM's name of normalized.
    normalize: Option<bool>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
    /// The purpose of the inputs: query or document, in the words of several vendors; other values say nothing.
    input_type: Option<Value>,
    /// Jina's name of input_type.
    task: Option<Value>,
    /// The caller's user, for plugins.
    user: Option<Value>,
    /// The outputs that are asked for: dense alone where nothing is said.
    #[schema(min_items = 1)]
    outputs: Option<Vec<Output>>,
    /// The form in which lexical weights are written.
    sparse_format: Option<SparseFormat>,
    /// true: the qdrant form also has the tokens.
    sparse_tokens: Option<bool>,
    /// The form in which token vectors are written; the one of encoding_format where nothing is said.
    colbert_format: Option<ColbertFormat>,
    /// Not supported: false at most.
    late_chunking: Option<bool>,
}

/// As vLLM names the sides of a text.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum TruncationSide {
    Left,
    Right,
}

/// One text, several, or tokens of them: a list of ids is one input.
#[derive(ToSchema)]
#[schema(as = Inputs)]
#[serde(untagged)]
pub(super) enum Inputs {
    Text(String),
    Texts(#[schema(inline)] Texts),
    Ids(#[schema(inline)] Ids),
    Lists(#[schema(inline)] IdLists),
}

/// A list that is not empty. Always written in its place, and never by its name.
pub(super) struct NonEmpty<T>(Vec<T>);

/// Texts and token ids beside each other.
pub(super) type Mixed = NonEmpty<TextOrIds>;

/// A text, or its token ids.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum TextOrIds {
    Text(#[schema(inline)] Text),
    Ids(#[schema(inline)] Ids),
}

/// Several texts.
pub(super) type Texts = NonEmpty<Text>;
/// One text's token ids.
pub(super) type Ids = NonEmpty<u32>;

/// Several texts' token ids.
pub(super) struct IdLists;

/// Several texts' token ids, where a text may have none.
pub(super) struct AnyIdLists;

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
pub(super) enum Text {
    Plain(String),
    Object(#[schema(inline)] TextObject),
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TextObject {
    text: String,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

/// binary and ubinary: whether numbers are above 0, eight in a signed or an unsigned byte, the first the highest bit.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EmbeddingType {
    Float,
    Base64,
    Binary,
    Ubinary,
}

/// true or false, or the side that is cut.
struct Truncate;

impl PartialSchema for Truncate {
    fn schema() -> RefOr<Schema> {
        one_of([
            json!(true),
            json!(false),
            json!("NONE"),
            json!("START"),
            json!("END"),
        ])
    }
}

impl ToSchema for Truncate {
    fn name() -> Cow<'static, str> {
        "TruncateOrNot".into()
    }
}

/// One of several values of any type.
pub(super) fn one_of(values: impl IntoIterator<Item = Value>) -> RefOr<Schema> {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    any.enum_values(Some(values)).build().into()
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum Output {
    Dense,
    Sparse,
    Colbert,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum SparseFormat {
    Qdrant,
    Milvus,
    Elasticsearch,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum ColbertFormat {
    Float,
    Base64,
    #[serde(rename = "base64_f16")]
    Base64F16,
}

#[derive(ToSchema)]
struct EmbeddingsResponse {
    #[schema(pattern = "^list$")]
    object: String,
    /// In the order of the inputs.
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(ToSchema)]
struct Embedding {
    #[schema(pattern = "^embedding$")]
    object: String,
    index: u64,
    /// null where dense was not asked for.
    #[schema(required)]
    embedding: Option<Vector>,
    #[schema(nullable = false)]
    sparse_embedding: Option<Sparse>,
    #[schema(nullable = false)]
    colbert_embedding: Option<Colbert>,
}

/// Numbers (or bytes of bits), or base64 of little-endian f32.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Lexical weights above 0: by ids ascending (qdrant), or by id (milvus) or token (elasticsearch).
#[derive(ToSchema)]
#[serde(untagged)]
enum Sparse {
    Lists(SparseLists),
    Map(BTreeMap<String, f32>),
}

#[derive(ToSchema)]
struct SparseLists {
    indices: Vec<u32>,
    values: Vec<f32>,
    #[schema(nullable = false)]
    tokens: Option<Vec<String>>,
}

/// A vector of length 1 for each token but the first.
#[derive(ToSchema)]
#[serde(untagged)]
enum Colbert {
    Numbers(Vec<Vec<f32>>),
    Base64(ColbertBase64),
}

#[derive(ToSchema)]
struct ColbertBase64 {
    /// Rows and columns.
    #[schema(min_items = 2, max_items = 2)]
    shape: Vec<u64>,
    /// float32 or float16, little-endian.
    dtype: String,
    /// Row by row.
    data: String,
}

#[derive(ToSchema)]
struct Usage {
    #[schema(minimum = 1)]
    prompt_tokens: u64,
    #[schema(minimum = 1)]
    total_tokens: u64,
}
