//! From the bytes of a body to a request.

use embedgate_core::{Head, Outputs};
use embedgate_request::{EmbedRequest, Error, Input, Side, TokenIds, VectorText};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::{
    input::{self, Inputs, Mix, texts},
    member::{Count, Raw},
    object::{Members, Source},
    openapi::lists::{Ids, Mixed, Texts},
};

/// The inputs of `/similarity`, for errors.
const SENTENCES: &str =
    "an object with source_sentence, a string, and sentences, a list of strings";

/// The body of a request for embeddings.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiEmbedRequest<'a> {
    /// The model's name; text-embeddings-inference has but one.
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = TeiInputs)]
    inputs: Option<Raw<'a>>,
    /// false: vectors as they come from the model.
    normalize: Option<bool>,
    /// Cut to so many dimensions.
    #[schema(value_type = Option<u64>, minimum = 0)]
    dimensions: Option<Count>,
    /// false: over-long inputs are refused.
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
}

impl<'a> Members<'a> for TeiEmbedRequest<'a> {
    const NEEDED: &'static str = "inputs";
}

/// One text, one text's token ids, or several of either.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
enum TeiInputs {
    Text(String),
    Ids(#[schema(inline)] Ids),
    Several(#[schema(inline)] Mixed),
}

/// The body of a request for similarities. Its options may be in an object of their own.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiSimilarityRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = TeiSentences)]
    inputs: Option<TeiSentences<'a>>,
    parameters: Option<TeiParameters>,
    /// As the same member of parameters.
    truncate: Option<bool>,
    /// As the same member of parameters.
    truncation_direction: Option<Direction>,
    /// As the same member of parameters.
    prompt_name: Option<String>,
    /// Compare so many dimensions.
    #[schema(value_type = Option<u64>, minimum = 0)]
    dimensions: Option<Count>,
    /// Changes nothing: a cosine is of vectors of length 1.
    #[expect(dead_code, reason = "its type is checked, and that is all")]
    normalize: Option<bool>,
}

impl<'a> Members<'a> for TeiSimilarityRequest<'a> {
    const NEEDED: &'static str = "inputs";
}

#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object with source_sentence, a string, and sentences, a list of strings")]
struct TeiSentences<'a> {
    source_sentence: String,
    #[serde(borrow)]
    #[schema(value_type = TeiOthers)]
    sentences: Option<Raw<'a>>,
}

/// One sentence, or several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
pub(in crate::http) enum TeiOthers {
    One(String),
    Several(#[schema(inline)] Texts),
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object with truncate, truncation_direction and prompt_name")]
struct TeiParameters {
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    prompt_name: Option<String>,
}

/// The side on which over-long inputs are cut.
#[derive(Clone, Copy, Deserialize, ToSchema)]
pub(in crate::http) enum Direction {
    Right,
    Left,
    #[serde(rename = "right")]
    LowerRight,
    #[serde(rename = "left")]
    LowerLeft,
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Right | Direction::LowerRight => Self::Right,
            Direction::Left | Direction::LowerLeft => Self::Left,
        }
    }
}

/// Reads a body of `/embed`.
pub(super) fn embed(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    let body: TeiEmbedRequest<'_> = source.members()?;
    let form = Inputs {
        name: "inputs",
        max: source.max_inputs,
        mix: Mix::Any,
    };
    let request = EmbedRequest {
        model: body.model,
        text: Some(VectorText::Numbers),
        prompt_name: body.prompt_name,
        token_ids: TokenIds::Native,
        dimensions: Count::get(body.dimensions),
        normalize: body.normalize,
        truncate: body.truncate,
        side: body.truncation_direction.map(Side::from),
        ..EmbedRequest::new(input::read(form, body.inputs)?)
    };
    Ok((request, ()))
}

/// Reads a body of `/embed_all`.
pub(super) fn embed_all(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    with_outputs(source, Outputs::of(&[Head::TokenVectors]))
}

/// Reads a body of `/embed_sparse`.
pub(super) fn embed_sparse(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    with_outputs(source, Outputs::of(&[Head::Sparse]))
}

fn with_outputs(source: &mut Source<'_>, outputs: Outputs) -> Result<(EmbedRequest, ()), Error> {
    let (request, ()) = embed(source)?;
    Ok((EmbedRequest { outputs, ..request }, ()))
}

/// Reads a body of `/similarity`: the source sentence is the first input.
pub(super) fn similarity(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    let body: TeiSimilarityRequest<'_> = source.members()?;
    let missing = || Error::invalid("inputs", format!("inputs is missing: {SENTENCES}"));
    let given = body.inputs.ok_or_else(missing)?;
    let sentences = texts("sentences", given.sentences, source.max_inputs - 1)?;
    let all = std::iter::once(Input::Text(given.source_sentence)).chain(sentences);
    let parameters = body.parameters.unwrap_or_default();
    let direction = body
        .truncation_direction
        .or(parameters.truncation_direction);
    let request = EmbedRequest {
        model: body.model,
        text: None,
        prompt_name: body.prompt_name.or(parameters.prompt_name),
        token_ids: TokenIds::Native,
        dimensions: Count::get(body.dimensions),
        normalize: Some(true),
        truncate: body.truncate.or(parameters.truncate),
        side: direction.map(Side::from),
        ..EmbedRequest::new(all.collect())
    };
    Ok((request, ()))
}
