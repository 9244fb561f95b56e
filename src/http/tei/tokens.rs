//! `POST /tokenize` and `POST /decode`: a model's tokens, without the model. A body with `prompt` is vLLM's, and is answered so.

use std::sync::Arc;

use axum::{Json, response::Response};
use embedgate_request::{Error, ErrorKind, Input, InputKind};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::super::{
    dialect::Dialect,
    error::Failed,
    exchange::{Exchange, json_body},
    input::Inputs,
    json,
    json::{inputs, object, typed},
};
use crate::{
    model::{
        Model,
        tokenizer::{TOKENIZER, TextTokenizer, Token},
    },
    offload,
};

/// Texts, or ids, of one request, in bytes.
const MOST_BYTES: usize = 256 << 10;
/// Bytes of memory for one byte of text: it may be a token of its own, while tokens are made and written.
const MEMORY_PER_BYTE: usize = 300;
/// Texts of at least so many bytes are split off the threads that serve connections: about 1 ms.
const ELSEWHERE: usize = 8 << 10;

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    inputs: Option<&'a RawValue>,
    /// vLLM's.
    prompt: Option<&'a RawValue>,
    return_token_strs: Option<&'a RawValue>,
    ids: Option<&'a RawValue>,
    add_special_tokens: Option<&'a RawValue>,
    skip_special_tokens: Option<&'a RawValue>,
    prompt_name: Option<&'a RawValue>,
}

/// `POST /tokenize`: the tokens of each text, with their places in characters.
pub(in super::super) async fn tokenize(mut exchange: Exchange) -> Result<Response, Failed> {
    let bytes = exchange.bytes().clone();
    let fields: Fields<'_> = object(&bytes, "inputs")?;
    if fields.inputs.is_none() && fields.prompt.is_some() {
        let answer = tokenize_prompt(&mut exchange, &fields).await;
        return answer.map_err(|error| Failed::from(error).in_words_of(Dialect::OpenAi));
    }
    let model = model(&mut exchange, &fields).await?;
    let given = inputs(
        Inputs::alike("inputs", exchange.gateway.config.max_inputs),
        fields.inputs,
    )?;
    let with_special = typed(
        "add_special_tokens",
        fields.add_special_tokens,
        "true or false",
    )?;
    let name: Option<String> = typed("prompt_name", fields.prompt_name, "a string")?;
    // Only a prompt that is named: the default one belongs to vectors.
    let prompt = match name {
        Some(name) => &**model.prompts.choose(Some(&name), InputKind::Unspecified)?,
        None => "",
    };
    let bytes = Input::total_bytes(&given);
    check_size("inputs", bytes)?;
    let memory = exchange.account.take(bytes * MEMORY_PER_BYTE)?;
    let texts = given.into_iter().map(|input| match input {
        Input::Text(text) => Ok(format!("{prompt}{text}")),
        Input::Tokens(_) => Err(Error::invalid(
            "inputs",
            "inputs must be a string or a list of strings: these are tokens already",
        )),
    });
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let tokenizer = model.tokenizer.clone();
    let with_special = with_special.unwrap_or(true);
    let work = move || all_tokens(&tokenizer, &texts, with_special);
    let json = offload::run_if(bytes >= ELSEWHERE, work).await??;
    Ok(json_body(json, memory))
}

/// The tokens of one text, as vLLM gives them.
///
/// Source: vLLM 0.11, `entrypoints/openai/protocol.py`, `TokenizeCompletionRequest` and `TokenizeResponse`.
async fn tokenize_prompt(exchange: &mut Exchange, fields: &Fields<'_>) -> Result<Response, Error> {
    let model = model(exchange, fields).await?;
    let boolean = "true or false";
    let prompt: Option<String> = typed("prompt", fields.prompt, "a string")?;
    let prompt = prompt.unwrap_or_default();
    let with_special = typed("add_special_tokens", fields.add_special_tokens, boolean)?;
    let with_names = typed("return_token_strs", fields.return_token_strs, boolean)?;
    check_size("prompt", prompt.len())?;
    let bytes = prompt.len();
    let memory = exchange.account.take(bytes * MEMORY_PER_BYTE)?;
    let (tokenizer, most) = (model.tokenizer.clone(), model.info.max_sequence_tokens);
    let work = move || {
        let tokens = tokenizer.tokens(&prompt, with_special.unwrap_or(true));
        let tokens = tokens.map_err(|e| Error::invalid("prompt", e).with_code(TOKENIZER))?;
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        let names = with_names.unwrap_or(false).then_some(names);
        let mut out = Vec::new();
        let answer =
            json!({"count": ids.len(), "max_model_len": most, "tokens": ids, "token_strs": names});
        json::write(&mut out, &answer);
        Ok::<_, Error>(out)
    };
    let json = offload::run_if(bytes >= ELSEWHERE, work).await??;
    Ok(json_body(json, memory))
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
pub(in super::super) async fn decode(mut exchange: Exchange) -> Result<Json<Vec<String>>, Failed> {
    let bytes = exchange.bytes().clone();
    let fields: Fields<'_> = object(&bytes, "ids")?;
    let model = model(&mut exchange, &fields).await?;
    let given = inputs(
        Inputs::alike("ids", exchange.gateway.config.max_inputs),
        fields.ids,
    )?;
    let skip = typed(
        "skip_special_tokens",
        fields.skip_special_tokens,
        "true or false",
    )?;
    let bytes = Input::total_bytes(&given);
    check_size("ids", bytes)?;
    let _memory = exchange.account.take(bytes * MEMORY_PER_BYTE)?;
    let tokenizer = model.tokenizer.clone();
    let work = move || {
        let texts = given.iter().map(|input| match input {
            Input::Tokens(ids) => text_of(&tokenizer, ids, skip.unwrap_or(true)),
            Input::Text(_) => Err(Error::invalid(
                "ids",
                "ids must be a list of token ids, or a list of such lists",
            )),
        });
        texts.collect::<Result<Vec<_>, _>>()
    };
    let texts = offload::run_if(bytes >= ELSEWHERE, work).await??;
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

async fn model(exchange: &mut Exchange, fields: &Fields<'_>) -> Result<Arc<Model>, Error> {
    let name: Option<String> = typed("model", fields.model, "a string")?;
    exchange.model(name.as_deref()).await
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
