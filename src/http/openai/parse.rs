//! From the bytes of a body to a request. Every error names the field.

use embedgate_core::Outputs;
use embedgate_request::{EmbedRequest, Error, Side, TokenIds};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    dense::{DenseForm, FORMS},
    input::Inputs,
    json::{count, inputs, kind, object, one_of, perhaps, typed, words, wrong},
    members::{Members, OF_EMBEDDINGS},
};

/// The members that mean something, as in [`Fields`].
pub(in crate::http) const KNOWN: [&str; 21] = [
    "model",
    "input",
    "encoding_format",
    "embedding_type",
    "dimensions",
    "output_dimension",
    "truncate",
    "truncation",
    "truncation_side",
    "truncate_prompt_tokens",
    "normalized",
    "normalize",
    "prompt_name",
    "input_type",
    "task",
    "user",
    "outputs",
    "sparse_format",
    "sparse_tokens",
    "colbert_format",
    "late_chunking",
];

pub(in crate::http) const MEMBERS: Members = Members {
    known: &KNOWN,
    foreign: OF_EMBEDDINGS,
};

/// The fields that mean something here. Each stays text until its own type is asked of it, so
/// that an error can say which field is wrong.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    /// Jina's name of it.
    embedding_type: Option<&'a RawValue>,
    dimensions: Option<&'a RawValue>,
    /// Voyage's name of it, and infinity's.
    output_dimension: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    /// Voyage's name of it.
    truncation: Option<&'a RawValue>,
    /// vLLM's.
    truncation_side: Option<&'a RawValue>,
    truncate_prompt_tokens: Option<&'a RawValue>,
    /// Jina's.
    normalized: Option<&'a RawValue>,
    /// vLLM's name of it.
    normalize: Option<&'a RawValue>,
    prompt_name: Option<&'a RawValue>,
    input_type: Option<&'a RawValue>,
    /// Jina's name of it.
    task: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    outputs: Option<&'a RawValue>,
    sparse_format: Option<&'a RawValue>,
    sparse_tokens: Option<&'a RawValue>,
    colbert_format: Option<&'a RawValue>,
    /// Jina's: vectors of several texts from one pass over all of them, which is not done here.
    late_chunking: Option<&'a RawValue>,
}

/// The form in which the results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) dense: DenseForm,
    pub(super) sparse: SparseForm,
    /// True when [`SparseForm::Lists`] also has the tokens.
    pub(super) sparse_tokens: bool,
    pub(super) colbert: ColbertForm,
}

impl Form {
    /// Returns true when tokens are written by their names.
    pub(super) fn names_tokens(self) -> bool {
        self.sparse_tokens || self.sparse == SparseForm::ByToken
    }
}

/// The form in which lexical weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SparseForm {
    /// `{"indices": [...], "values": [...]}`, as Qdrant takes them.
    Lists,
    /// `{"ID": weight}`, as Milvus takes them.
    ById,
    /// `{"TOKEN": weight}`, as Elasticsearch takes them.
    ByToken,
}

/// The form in which token vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColbertForm {
    /// A list of lists.
    Numbers,
    /// Shape, type, and base64 of little-endian f32.
    F32,
    /// Shape, type, and base64 of little-endian f16.
    F16,
}

/// Reads a body; `max_inputs` bounds the entries of `input`.
pub(super) fn request(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, Form), Error> {
    let fields: Fields<'_> = object(bytes, "model and input")?;
    if typed("late_chunking", fields.late_chunking, "true or false")? == Some(true) {
        let message = "late_chunking is not supported: leave it out, or say false";
        return Err(Error::invalid("late_chunking", message));
    }
    let dimensions = count("dimensions", fields.dimensions)?;
    let dimensions = dimensions.or(count("output_dimension", fields.output_dimension)?);
    let form = form(&fields)?;
    let boolean = "true or false";
    let cut = truncate("truncate", fields.truncate)?.or(truncate("truncation", fields.truncation)?);
    let sides = [("left", Side::Left), ("right", Side::Right)];
    let side = one_of("truncation_side", fields.truncation_side, &sides)?;
    let normalize = typed("normalized", fields.normalized, boolean)?;
    let said = perhaps(fields.input_type).or_else(|| perhaps(fields.task));
    let request = EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        outputs: outputs(fields.outputs)?,
        text: form.dense.text(),
        kind: kind(said.as_deref()),
        prompt_name: typed("prompt_name", fields.prompt_name, "a string")?,
        user: perhaps(fields.user),
        token_ids: TokenIds::Cl100k,
        dimensions,
        normalize: normalize.or(typed("normalize", fields.normalize, boolean)?),
        truncate: cut.map(Cut::is_done),
        side: cut.and_then(Cut::side).or(side),
        max_tokens: truncate_prompt_tokens(fields.truncate_prompt_tokens)?,
        ..EmbedRequest::new(inputs(Inputs::alike("input", max_inputs), fields.input)?)
    };
    Ok((request, form))
}

fn form(fields: &Fields<'_>) -> Result<Form, Error> {
    let encoding = one_of("encoding_format", fields.encoding_format, &FORMS[..2])?;
    let dense = match one_of("embedding_type", fields.embedding_type, &FORMS)? {
        // OpenAI's clients always name an encoding; these are Jina's alone, so that somebody asked for them.
        Some(form @ (DenseForm::Binary | DenseForm::Ubinary)) => form,
        jinas => encoding.or(jinas).unwrap_or(DenseForm::Float),
    };
    let sparse_forms = [
        ("qdrant", SparseForm::Lists),
        ("milvus", SparseForm::ById),
        ("elasticsearch", SparseForm::ByToken),
    ];
    let colbert_forms = [
        ("float", ColbertForm::Numbers),
        ("base64", ColbertForm::F32),
        ("base64_f16", ColbertForm::F16),
    ];
    let as_dense = match dense {
        DenseForm::Base64 => ColbertForm::F32,
        DenseForm::Float | DenseForm::Binary | DenseForm::Ubinary => ColbertForm::Numbers,
    };
    let colbert = one_of("colbert_format", fields.colbert_format, &colbert_forms)?;
    Ok(Form {
        dense,
        sparse: one_of("sparse_format", fields.sparse_format, &sparse_forms)?
            .unwrap_or(SparseForm::Lists),
        sparse_tokens: typed("sparse_tokens", fields.sparse_tokens, "true or false")?
            .unwrap_or(false),
        colbert: colbert.unwrap_or(as_dense),
    })
}

/// The treatment of an over-long input: cut or not, and on which side.
#[derive(Clone, Copy)]
enum Cut {
    Never,
    /// On the side that the model's folder says.
    Somewhere,
    At(Side),
}

impl Cut {
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

/// Reads the treatment of an over-long input, in this gateway's words or in those of Cohere and NVIDIA.
fn truncate(name: &'static str, raw: Option<&RawValue>) -> Result<Option<Cut>, Error> {
    let expected = "true or false, or one of \"NONE\", \"START\" and \"END\"";
    match raw.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(Cut::Somewhere)),
        Some("\"END\"") => Ok(Some(Cut::At(Side::Right))),
        Some("\"START\"") => Ok(Some(Cut::At(Side::Left))),
        Some("false" | "\"NONE\"") => Ok(Some(Cut::Never)),
        Some(other) => Err(wrong(name, expected, other)),
    }
}

/// The most tokens of an input; -1 is as many as the model takes.
pub(in crate::http) fn truncate_prompt_tokens(
    raw: Option<&RawValue>,
) -> Result<Option<usize>, Error> {
    let name = "truncate_prompt_tokens";
    match raw.map(RawValue::get) {
        Some("-1") => Ok(None),
        _ => count(name, raw),
    }
}

fn outputs(raw: Option<&RawValue>) -> Result<Outputs, Error> {
    let expected = "a list of \"dense\", \"sparse\" and \"colbert\"";
    let Some(names) = words("outputs", raw, expected)? else {
        return Ok(Outputs::DENSE);
    };
    let mut outputs = Outputs::default();
    for name in &names {
        match name.as_str() {
            "dense" => outputs.dense = true,
            "sparse" => outputs.sparse = true,
            "colbert" => outputs.multi_vector = true,
            other => return Err(wrong("outputs", expected, &format!("{other:?}"))),
        }
    }
    if names.is_empty() {
        return Err(wrong("outputs", expected, "[]"));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use embedgate_request::Input;

    use super::*;

    fn inputs(json: &str) -> Result<Vec<Input>, String> {
        let parsed = request(json.as_bytes(), 100);
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
        let (request, form) = request(json.as_bytes(), 100).unwrap();
        assert_eq!(
            (request.model, request.dimensions, request.truncate),
            (None, None, None)
        );
        assert_eq!(form.dense, DenseForm::Float);
        assert_eq!(request.outputs, Outputs::DENSE);
    }
}
