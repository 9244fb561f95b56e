//! Answers of `/v1/embeddings`.

use std::{borrow::Cow, collections::BTreeMap};

use embedgate_core::{Head, HeadForm};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Ref, RefOr, Schema},
};

use super::Operation;
use crate::http::openai::parse::EmbeddingsRequest;

pub(in crate::http) fn embeddings() -> Operation {
    Operation::post::<EmbeddingsRequest<'_>, EmbeddingsResponse>(
        "Embed texts",
        "As OpenAI's; with `outputs`, lexical weights and token vectors too, from one pass through the model. Also \
         at `/embeddings`, `/v1/v1/embeddings` and `/v1-openai/embeddings`.",
    )
    .tried_with(r#"{"input": ["The food was good.", "向量检索"]}"#)
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

// The members that every item has. A comment: its documentation would be a description in the document.
#[derive(ToSchema)]
struct Item {
    #[schema(pattern = "^embedding$")]
    object: String,
    index: u64,
    /// null where dense was not asked for.
    #[schema(required)]
    embedding: Option<Vector>,
}

/// An item with a member for each head that requests ask for by name.
struct Embedding;

impl PartialSchema for Embedding {
    fn schema() -> RefOr<Schema> {
        let mut item = Item::schema();
        if let RefOr::T(Schema::Object(item)) = &mut item {
            for (head, names) in Head::named().filter(|(head, _)| *head != Head::Dense) {
                let form = match head.form() {
                    HeadForm::Vector => Vector::name(),
                    HeadForm::Weights => Sparse::name(),
                    HeadForm::Rows { .. } => Colbert::name(),
                    HeadForm::Score => continue,
                };
                let form = Ref::from_schema_name(form).into();
                item.properties.insert(names.member.to_owned(), form);
            }
        }
        item
    }
}

impl ToSchema for Embedding {
    fn name() -> Cow<'static, str> {
        "Embedding".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Item::schemas(schemas);
        Sparse::schemas(schemas);
        Colbert::schemas(schemas);
        schemas.push((Sparse::name().into(), Sparse::schema()));
        schemas.push((Colbert::name().into(), Colbert::schema()));
    }
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
