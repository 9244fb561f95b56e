//! `POST /tokenize` and `POST /decode`: a model's tokens, without the model. A body with `prompt` is vLLM's, and is answered so.

use axum::{Json, response::Response};
use embedgate_request::{Error, ErrorKind, Input, InputKind};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::super::{
    admitted_request::AdmittedRequest,
    answer::json_body,
    dialect::Dialect,
    error::Failed,
    input::{self, Inputs},
    json,
    member::Raw,
    object::{Members, Source},
    openapi::lists::{AnyIdLists, Ids},
};
use super::parse::TeiOthers;
use crate::{
    blocking,
    model::tokenizer::{TOKENIZER, TextTokenizer, vocabulary::Token},
};

/// Texts, or ids, of one request, in bytes.
const MOST_BYTES: usize = 256 << 10;
/// Bytes of memory for one byte of text: it may be a token of its own, while tokens are made and written.
const MEMORY_PER_BYTE: usize = 300;
/// Texts of at least so many bytes are split off the threads that serve connections: about 1 ms.
const ELSEWHERE: usize = 8 << 10;

/// The body of `/tokenize`.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiTokenizeRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = TeiOthers)]
    inputs: Option<Raw<'a>>,
    /// true: the tokens that begin and end a text are there too. The default is true.
    add_special_tokens: Option<bool>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
}

impl<'a> Members<'a> for TeiTokenizeRequest<'a> {
    const NEEDED: &'static str = "inputs";
}

/// vLLM's body of `/tokenize`.
#[derive(Deserialize)]
struct PromptRequest {
    model: Option<String>,
    prompt: Option<String>,
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
}

impl Members<'_> for PromptRequest {
    const NEEDED: &'static str = "prompt";
}

/// The body of `/decode`.
#[derive(Deserialize, ToSchema)]
pub(in crate::http) struct TeiDecodeRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = TeiIds)]
    ids: Option<Raw<'a>>,
    /// true where nothing is said.
    skip_special_tokens: Option<bool>,
}

impl<'a> Members<'a> for TeiDecodeRequest<'a> {
    const NEEDED: &'static str = "ids";
}

/// One list of ids, or several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
enum TeiIds {
    One(#[schema(inline)] Ids),
    Several(#[schema(inline)] AnyIdLists),
}

/// `POST /tokenize`: the tokens of each text, with their places in characters.
pub(in super::super) async fn tokenize(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let bytes = admitted.bytes().clone();
    let mut source = Source::new(&bytes, admitted.gateway.config.max_inputs);
    if source.has("prompt") && !source.has("inputs") {
        let answer = tokenize_prompt(admitted, &mut source).await;
        return answer.map_err(|error| Failed::from(error).in_words_of(Dialect::OpenAi));
    }
    let body: TeiTokenizeRequest<'_> = source.members()?;
    let memory = admitted.ctx.memory.clone();
    let (model, _body) = admitted.into_model(body.model.as_deref()).await?;
    let given = input::read(Inputs::alike("inputs", source.max_inputs), body.inputs)?;
    // Only a prompt that is named: the default one belongs to vectors.
    let prompt = match body.prompt_name {
        Some(name) => &**model.prompts.choose(Some(&name), InputKind::Unspecified)?,
        None => "",
    };
    let bytes = Input::total_bytes(&given);
    check_size("inputs", bytes)?;
    let held = memory.take(bytes * MEMORY_PER_BYTE)?;
    let texts = given.into_iter().map(|input| match input {
        Input::Text(text) => Ok(format!("{prompt}{text}")),
        Input::Tokens(_) => Err(Error::invalid(
            "inputs",
            "inputs must be a string or a list of strings: these are tokens already",
        )),
    });
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let tokenizer = model.tokenizer.clone();
    let with_special = body.add_special_tokens.unwrap_or(true);
    let work = move || all_tokens(&tokenizer, &texts, with_special);
    let json = blocking::run_if_large(bytes >= ELSEWHERE, work).await??;
    Ok(json_body(json, held))
}

/// The tokens of one text, as vLLM gives them.
///
/// Source: vLLM 0.11, `entrypoints/openai/protocol.py`, `TokenizeCompletionRequest` and `TokenizeResponse`.
async fn tokenize_prompt(
    admitted: AdmittedRequest,
    source: &mut Source<'_>,
) -> Result<Response, Error> {
    let body: PromptRequest = source.members()?;
    let memory = admitted.ctx.memory.clone();
    let (model, _body) = admitted.into_model(body.model.as_deref()).await?;
    let prompt = body.prompt.unwrap_or_default();
    check_size("prompt", prompt.len())?;
    let bytes = prompt.len();
    let held = memory.take(bytes * MEMORY_PER_BYTE)?;
    let (tokenizer, most) = (model.tokenizer.clone(), model.info.max_sequence_tokens);
    let work = move || {
        let tokens = tokenizer.tokens(&prompt, body.add_special_tokens.unwrap_or(true));
        let tokens = tokens.map_err(|e| Error::invalid("prompt", e).with_code(TOKENIZER))?;
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        let names = body.return_token_strs.unwrap_or(false).then_some(names);
        let mut out = Vec::new();
        let answer =
            json!({"count": ids.len(), "max_model_len": most, "tokens": ids, "token_strs": names});
        json::write(&mut out, &answer);
        Ok::<_, Error>(out)
    };
    let json = blocking::run_if_large(bytes >= ELSEWHERE, work).await??;
    Ok(json_body(json, held))
}

fn all_tokens(
    tokenizer: &TextTokenizer,
    texts: &[String],
    with_special: bool,
) -> Result<Vec<u8>, Error> {
    let tokens = texts.iter().map(|text| {
        let tokens = tokenizer.tokens(text, with_special);
        tokens.map_err(|e| Error::invalid("inputs", e).with_code(TOKENIZER))
    });
    let tokens: Vec<Vec<Token>> = tokens.collect::<Result<_, _>>()?;
    let mut out = Vec::new();
    json::list(
        &mut out,
        texts.iter().zip(&tokens),
        |out, (text, tokens)| {
            let characters: Vec<char> = text.chars().collect();
            json::list(out, tokens, |out, token| {
                let place = token.place;
                let inner = place.and_then(|(start, stop)| characters.get(start..stop));
                let shown =
                    inner.map_or_else(|| token.name.clone(), |inner| inner.iter().collect());
                let (start, stop) = place.unzip();
                json::write(
                    out,
                    &json!({"id": token.id, "text": shown, "special": place.is_none(), "start": start, "stop": stop}),
                );
            });
        },
    );
    Ok(out)
}

/// `POST /decode`: the text of each list of token ids.
pub(in super::super) async fn decode(
    admitted: AdmittedRequest,
) -> Result<Json<Vec<String>>, Failed> {
    let bytes = admitted.bytes().clone();
    let mut source = Source::new(&bytes, admitted.gateway.config.max_inputs);
    let body: TeiDecodeRequest<'_> = source.members()?;
    let memory = admitted.ctx.memory.clone();
    let (model, _body) = admitted.into_model(body.model.as_deref()).await?;
    let given = input::read(Inputs::alike("ids", source.max_inputs), body.ids)?;
    let bytes = Input::total_bytes(&given);
    check_size("ids", bytes)?;
    let _held = memory.take(bytes * MEMORY_PER_BYTE)?;
    let tokenizer = model.tokenizer.clone();
    let skip_special = body.skip_special_tokens.unwrap_or(true);
    let work = move || {
        let texts = given.iter().map(|input| match input {
            Input::Tokens(ids) => text_of(&tokenizer, ids, skip_special),
            Input::Text(_) => Err(Error::invalid(
                "ids",
                "ids must be a list of token ids, or a list of such lists",
            )),
        });
        texts.collect::<Result<Vec<_>, _>>()
    };
    let texts = blocking::run_if_large(bytes >= ELSEWHERE, work).await??;
    Ok(Json(texts))
}

fn text_of(tokenizer: &TextTokenizer, ids: &[u32], skip_special: bool) -> Result<String, Error> {
    if let Some(unknown) = ids.iter().find(|id| tokenizer.name(**id).is_none()) {
        let message = format!("ids: {unknown} is not in the model's vocabulary");
        return Err(Error::invalid("ids", message));
    }
    let text = tokenizer.decode(ids, skip_special);
    text.map_err(|e| Error::invalid("ids", e))
}

fn check_size(name: &'static str, bytes: usize) -> Result<(), Error> {
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let message =
        format!("{name} must have at most {MOST_BYTES} bytes here, got {bytes}: split the request");
    Err(Error {
        param: Some(name),
        ..Error::new(ErrorKind::PayloadTooLarge, message)
    })
}
