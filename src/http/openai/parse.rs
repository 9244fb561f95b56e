//! From the bytes of a body to a request. Every error names the member.

use std::{borrow::Cow, fmt};

use embedgate_core::Outputs;
use embedgate_request::{EmbedRequest, Error, Side, TokenIds};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    super::{
        dense::DenseForm,
        foreign::{Foreign, OF_EMBEDDINGS},
        input::{self, Inputs},
        json::input_kind,
        member::{Count, Lenient, MaxTokens, Raw, Words, wrong},
        object::{Members, Source},
        openapi::lists::{self, one_of},
    },
    outputs::Output,
};

/// The body of a request for embeddings.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct EmbeddingsRequest<'a> {
    /// The model's name or alias.
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = lists::Inputs)]
    input: Option<Raw<'a>>,
    /// Numbers, or base64 of little-endian f32.
    encoding_format: Option<Encoding>,
    /// Jina's name of encoding_format, with two forms more.
    embedding_type: Option<DenseForm>,
    /// Cut to so many dimensions, and made length 1 again.
    #[schema(value_type = Option<u64>, minimum = 0)]
    dimensions: Option<Count>,
    /// Voyage's name of dimensions.
    #[schema(value_type = Option<u64>, minimum = 0)]
    output_dimension: Option<Count>,
    /// true or a side: over-long inputs are cut, on that side. Else they are refused.
    truncate: Option<Truncate>,
    /// Voyage's name of truncate.
    truncation: Option<Truncate>,
    /// The side on which over-long inputs are cut; the model's own where nothing is said.
    truncation_side: Option<TruncationSide>,
    /// Cuts inputs to so many tokens; special tokens stay. -1: to as many as the model takes.
    #[schema(value_type = Option<i64>, minimum = -1)]
    truncate_prompt_tokens: Option<MaxTokens>,
    /// false: vectors as they come from the model.
    normalized: Option<bool>,
    /// vLLM's name of normalized.
    normalize: Option<bool>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
    /// The purpose of the inputs: query or document, in the words of several vendors; other values say nothing.
    #[schema(value_type = Option<Value>)]
    input_type: Option<Lenient>,
    /// Jina's name of input_type.
    #[schema(value_type = Option<Value>)]
    task: Option<Lenient>,
    /// The caller's user, for plugins.
    #[schema(value_type = Option<Value>)]
    user: Option<Lenient>,
    /// The outputs that are asked for: dense alone where nothing is said.
    #[schema(value_type = Option<Vec<Output>>, min_items = 1)]
    outputs: Option<Words<Output>>,
    /// The form in which lexical weights are written.
    sparse_format: Option<SparseFormat>,
    /// true: the qdrant form also has the tokens.
    sparse_tokens: Option<bool>,
    /// The form in which token vectors are written; the one of encoding_format where nothing is said.
    colbert_format: Option<ColbertFormat>,
    /// Not supported: false at most.
    late_chunking: Option<bool>,
}

impl<'a> Members<'a> for EmbeddingsRequest<'a> {
    const NEEDED: &'static str = "model and input";
    const FOREIGN: &'static [Foreign] = OF_EMBEDDINGS;
}

/// As vLLM names the sides of a text.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TruncationSide {
    Left,
    Right,
}

/// The encodings of dense vectors that `OpenAI` has.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Encoding {
    Float,
    Base64,
}

impl From<Encoding> for DenseForm {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Float,
            Encoding::Base64 => Self::Base64,
        }
    }
}

/// The form in which lexical weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SparseFormat {
    /// `{"indices": [...], "values": [...]}`, as Qdrant takes them.
    Qdrant,
    /// `{"ID": weight}`, as Milvus takes them.
    Milvus,
    /// `{"TOKEN": weight}`, as Elasticsearch takes them.
    Elasticsearch,
}

/// The form in which token vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ColbertFormat {
    /// A list of lists.
    Float,
    /// Shape, type, and base64 of little-endian f32.
    Base64,
    /// Shape, type, and base64 of little-endian f16.
    #[serde(rename = "base64_f16")]
    Base64F16,
}

/// The form in which the results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) dense: DenseForm,
    pub(super) sparse: SparseFormat,
    /// True when [`SparseFormat::Qdrant`] also has the tokens.
    pub(super) sparse_tokens: bool,
    pub(super) colbert: ColbertFormat,
}

impl Form {
    /// Returns true when tokens are written by their names.
    pub(super) fn names_tokens(self) -> bool {
        self.sparse_tokens || self.sparse == SparseFormat::Elasticsearch
    }

    fn of(body: &EmbeddingsRequest<'_>) -> Self {
        let encoding = body.encoding_format.map(DenseForm::from);
        let dense = match body.embedding_type {
            // OpenAI's clients always name an encoding; these are Jina's alone, so that somebody asked for them.
            Some(form @ (DenseForm::Binary | DenseForm::Ubinary)) => form,
            jinas => encoding.or(jinas).unwrap_or(DenseForm::Float),
        };
        let as_dense = match dense {
            DenseForm::Base64 => ColbertFormat::Base64,
            DenseForm::Float | DenseForm::Binary | DenseForm::Ubinary => ColbertFormat::Float,
        };
        Self {
            dense,
            sparse: body.sparse_format.unwrap_or(SparseFormat::Qdrant),
            sparse_tokens: body.sparse_tokens.unwrap_or(false),
            colbert: body.colbert_format.unwrap_or(as_dense),
        }
    }
}

/// Reads a body.
pub(super) fn request(source: &mut Source<'_>) -> Result<(EmbedRequest, Form), Error> {
    let body: EmbeddingsRequest<'_> = source.members()?;
    if body.late_chunking == Some(true) {
        // Vectors of several texts from one pass over all of them are not made here.
        let message = "late_chunking is not supported: leave it out, or say false";
        return Err(Error::invalid("late_chunking", message));
    }
    let form = Form::of(&body);
    let cut = body.truncate.or(body.truncation);
    let side = body.truncation_side.map(|side| match side {
        TruncationSide::Left => Side::Left,
        TruncationSide::Right => Side::Right,
    });
    let purpose = Lenient::get(body.input_type).or_else(|| Lenient::get(body.task));
    let inputs = Inputs::alike("input", source.max_inputs);
    let request = EmbedRequest {
        model: body.model,
        outputs: outputs(body.outputs)?,
        text: form.dense.text(),
        kind: input_kind(purpose.as_deref()),
        prompt_name: body.prompt_name,
        user: Lenient::get(body.user),
        token_ids: TokenIds::Cl100k,
        dimensions: Count::get(body.dimensions).or(Count::get(body.output_dimension)),
        normalize: body.normalized.or(body.normalize),
        truncate: cut.map(Truncate::is_done),
        side: cut.and_then(Truncate::side).or(side),
        max_tokens: MaxTokens::get(body.truncate_prompt_tokens),
        ..EmbedRequest::new(input::read(inputs, body.input)?)
    };
    Ok((request, form))
}

fn outputs(names: Option<Words<Output>>) -> Result<Outputs, Error> {
    let Some(Words(names)) = names else {
        return Ok(Outputs::DENSE);
    };
    if names.is_empty() {
        return Err(wrong("outputs", &Words::<Output>::expected(), "[]"));
    }
    Ok(names.into_iter().map(|Output(head)| head).collect())
}

/// The treatment of an over-long input, in this gateway's words or in those of Cohere and NVIDIA: true or false, or the side
/// that is cut.
#[derive(Clone, Copy)]
enum Truncate {
    Never,
    /// On the side that the model's folder says.
    Somewhere,
    At(Side),
}

impl Truncate {
    fn is_done(self) -> bool {
        !matches!(self, Self::Never)
    }

    fn side(self) -> Option<Side> {
        match self {
            Self::At(side) => Some(side),
            Self::Never | Self::Somewhere => None,
        }
    }
}

impl<'de> Deserialize<'de> for Truncate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SideOrNot;
        impl Visitor<'_> for SideOrNot {
            type Value = Truncate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, or one of \"NONE\", \"START\" and \"END\"")
            }

            fn visit_bool<E>(self, is_cut: bool) -> Result<Truncate, E> {
                Ok(if is_cut {
                    Truncate::Somewhere
                } else {
                    Truncate::Never
                })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Truncate, E> {
                match word {
                    "NONE" => Ok(Truncate::Never),
                    "START" => Ok(Truncate::At(Side::Left)),
                    "END" => Ok(Truncate::At(Side::Right)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(SideOrNot)
    }
}

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

#[cfg(test)]
mod tests {
    use embedgate_request::Input;

    use super::*;

    fn inputs(json: &str) -> Result<Vec<Input>, String> {
        let parsed = request(&mut Source::new(json.as_bytes(), 100));
        parsed
            .map(|(request, _)| request.inputs)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_input_is_read() {
        let text = |text: &str| Input::Text(text.into());
        let cases = [
            (r#"{"input":"a"}"#, vec![text("a")]),
            (
                r#"{"input":["a",""," "]}"#,
                vec![text("a"), text(""), text(" ")],
            ),
            (r#"{"input":[1,2]}"#, vec![Input::Tokens(vec![1, 2])]),
            (
                r#"{"input":[[1],[2,3]]}"#,
                vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])],
            ),
            (
                "  {\"user\":5,\"nested\":[[[[{}]]]],\"input\":\"\\ud83d\\ude00\"}\n",
                vec![text("😀")],
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(inputs(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn null_counts_as_absent_and_zero_dimensions_too() {
        let json =
            r#"{"model":null,"input":"a","encoding_format":null,"dimensions":0,"truncate":null}"#;
        let (request, form) = request(&mut Source::new(json.as_bytes(), 100)).unwrap();
        assert_eq!(
            (request.model, request.dimensions, request.truncate),
            (None, None, None)
        );
        assert_eq!(form.dense, DenseForm::Float);
        assert_eq!(request.outputs, Outputs::DENSE);
    }
}
