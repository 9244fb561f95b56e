//! From the bytes of a body to a request.

use embedgate_core::Outputs;
use embedgate_request::{EmbedRequest, Error, Input, TokenIds, VectorText};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    input::{Inputs, Mix},
    json::{count, inputs, object, texts, truncation_direction, typed, wrong},
    members::Members,
};

/// The members that mean something.
pub(in crate::http) const KNOWN: [&str; 8] = [
    "model",
    "inputs",
    "parameters",
    "truncate",
    "truncation_direction",
    "prompt_name",
    "normalize",
    "dimensions",
];

pub(in crate::http) const MEMBERS: Members = Members {
    known: &KNOWN,
    foreign: &[],
};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    inputs: Option<&'a RawValue>,
    parameters: Option<&'a RawValue>,
    normalize: Option<&'a RawValue>,
    dimensions: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    truncation_direction: Option<&'a RawValue>,
    prompt_name: Option<&'a RawValue>,
}

/// `/similarity` has its options in an object of their own.
#[derive(Default, Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    truncate: Option<&'a RawValue>,
    truncation_direction: Option<&'a RawValue>,
    prompt_name: Option<&'a RawValue>,
}

pub(super) fn embed(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, ()), Error> {
    let fields: Fields<'_> = object(bytes, "inputs")?;
    let form = Inputs {
        name: "inputs",
        max: max_inputs,
        mix: Mix::Any,
    };
    let given = inputs(form, fields.inputs)?;
    Ok((request(&fields, &Parameters::default(), given)?, ()))
}

pub(super) fn embed_all(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, ()), Error> {
    let outputs = Outputs {
        token_vectors: true,
        ..Outputs::default()
    };
    other_outputs(bytes, max_inputs, outputs)
}

pub(super) fn embed_sparse(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, ()), Error> {
    let outputs = Outputs {
        sparse: true,
        ..Outputs::default()
    };
    other_outputs(bytes, max_inputs, outputs)
}

fn other_outputs(
    bytes: &[u8],
    max_inputs: usize,
    outputs: Outputs,
) -> Result<(EmbedRequest, ()), Error> {
    let (request, ()) = embed(bytes, max_inputs)?;
    Ok((EmbedRequest { outputs, ..request }, ()))
}

/// The source sentence is the first input.
pub(super) fn similarity(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, ()), Error> {
    #[derive(Deserialize)]
    struct Sentences<'a> {
        source_sentence: String,
        #[serde(borrow)]
        sentences: Option<&'a RawValue>,
    }
    let fields: Fields<'_> = object(bytes, "inputs")?;
    let expected = "an object with source_sentence, a string, and sentences, a list of strings";
    let read = fields
        .inputs
        .and_then(|raw| serde_json::from_str::<Sentences<'_>>(raw.get()).ok());
    let Some(given) = read else {
        return Err(Error::invalid(
            "inputs",
            format!("inputs must be {expected}"),
        ));
    };
    let sentences = texts("sentences", given.sentences, max_inputs - 1)?;
    let all = std::iter::once(Input::Text(given.source_sentence)).chain(sentences);
    let parameters = parameters(fields.parameters)?;
    let mut request = request(&fields, &parameters, all.collect())?;
    (request.text, request.normalize) = (None, Some(true));
    Ok((request, ()))
}

fn parameters(raw: Option<&RawValue>) -> Result<Parameters<'_>, Error> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
        return Ok(Parameters::default());
    };
    let expected = "an object with truncate, truncation_direction and prompt_name";
    serde_json::from_str(raw.get()).map_err(|_| wrong("parameters", expected, raw.get()))
}

fn request(
    fields: &Fields<'_>,
    parameters: &Parameters<'_>,
    inputs: Vec<Input>,
) -> Result<EmbedRequest, Error> {
    let boolean = "true or false";
    let direction = fields
        .truncation_direction
        .or(parameters.truncation_direction);
    Ok(EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        text: Some(VectorText::Numbers),
        prompt_name: typed(
            "prompt_name",
            fields.prompt_name.or(parameters.prompt_name),
            "a string",
        )?,
        token_ids: TokenIds::Native,
        dimensions: count("dimensions", fields.dimensions)?,
        normalize: typed("normalize", fields.normalize, boolean)?,
        truncate: typed("truncate", fields.truncate.or(parameters.truncate), boolean)?,
        side: truncation_direction(direction)?,
        ..EmbedRequest::new(inputs)
    })
}
