//! Makes of a request's inputs what the cache and the model take. By arithmetic alone: no model is asked.

use embedgate_core::Outputs;
use embedgate_request::{EmbedRequest, Error, Input, Lane, Principal, TokenIds};
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

use super::Task;
use crate::{
    cache::{CacheKey, EmbeddingCache, Head, PerHead, key::KeyParts},
    model::Model,
};

/// Requests of at most so many inputs and bytes are queries where nobody says otherwise: a question or a few, and less
/// than a page.
const QUERY_INPUTS: usize = 4;
const QUERY_BYTES: usize = 4096;

/// An input that the model can take, and the keys of what is asked of it.
pub(super) struct Prepared {
    pub(super) input: Input,
    pub(super) keys: PerHead<CacheKey>,
}

/// The lane that the caller says, else the model's configuration, else the size.
pub(super) fn lane(said: Option<Lane>, configured: Option<Lane>, inputs: &[Input]) -> Lane {
    let bytes = Input::total_bytes(inputs);
    let by_size = if inputs.len() <= QUERY_INPUTS && bytes <= QUERY_BYTES {
        Lane::Query
    } else {
        Lane::Bulk
    };
    said.or(configured).unwrap_or(by_size)
}

/// Refuses a request with no input or with too many.
pub(super) fn check_count(name: &'static str, n: usize, max: usize) -> Result<(), Error> {
    match n {
        0 => Err(Error::invalid(
            name,
            format!("{name} must hold at least one entry"),
        )),
        n if n > max => Err(Error::too_many(name, n, max)),
        _ => Ok(()),
    }
}

/// Decodes token ids that stand for text, checks those that do not, and makes the keys.
pub(super) fn prepare(
    cache: &EmbeddingCache,
    principal: &Principal,
    task: &Task,
    request: EmbedRequest,
) -> Result<Vec<Prepared>, Error> {
    let model = &task.model;
    let policy = model.config.token_ids.unwrap_or(request.token_ids);
    let heads = heads(request.outputs);
    let one = |(i, input)| {
        let input = match input {
            Input::Text(text) => Input::Text(text),
            Input::Tokens(ids) => {
                readable(model, policy, ids).map_err(|error| error.of_input(i))?
            }
        };
        let mut keys = PerHead::default();
        let parts = KeyParts {
            fingerprint: &model.fingerprint,
            prompt: &task.prompt,
            truncation: task.truncation,
            input: &input,
        };
        for head in heads.clone() {
            keys.set(head, cache.key(principal, &parts, head));
        }
        Ok(Prepared { input, keys })
    };
    request.inputs.into_iter().enumerate().map(one).collect()
}

/// Reads token ids as the policy says, and leaves texts.
pub(super) fn decode(
    model: &Model,
    policy: TokenIds,
    inputs: Vec<Input>,
) -> Result<Vec<Input>, Error> {
    let one = |(i, input)| match input {
        Input::Text(text) => Ok(Input::Text(text)),
        Input::Tokens(ids) => readable(model, policy, ids).map_err(|error| error.of_input(i)),
    };
    inputs.into_iter().enumerate().map(one).collect()
}

fn heads(outputs: Outputs) -> impl Iterator<Item = Head> + Clone {
    Head::ALL.into_iter().filter(move |head| match head {
        Head::Dense => outputs.dense,
        Head::Sparse => outputs.sparse,
        Head::MultiVector => outputs.multi_vector,
        Head::TokenVectors => outputs.token_vectors,
    })
}

fn readable(model: &Model, policy: TokenIds, ids: Vec<u32>) -> Result<Input, Error> {
    if ids.is_empty() {
        return Err(Error::invalid(
            "input",
            "a list of token ids must not be empty",
        ));
    }
    match policy {
        TokenIds::Reject => {
            let way_out = "send strings; LangChain: check_embedding_ctx_length=False";
            Err(Error::invalid(
                "input",
                format!("model \"{}\" takes no token ids: {way_out}", model.name),
            ))
        }
        TokenIds::Native => native(model, ids),
        TokenIds::Cl100k => openai(cl100k_base_singleton(), "cl100k_base", &ids),
        TokenIds::O200k => openai(o200k_base_singleton(), "o200k_base", &ids),
    }
}

fn native(model: &Model, ids: Vec<u32>) -> Result<Input, Error> {
    let n = model.info.vocabulary_size;
    match ids.iter().find(|id| **id as usize >= n) {
        None => Ok(Input::Tokens(ids)),
        Some(id) => Err(Error::invalid(
            "input",
            format!("token id {id} is outside of the model's vocabulary of {n} ids"),
        )),
    }
}

/// Reads ids of one of `OpenAI`'s encodings.
fn openai(encoding: &CoreBPE, name: &str, ids: &[u32]) -> Result<Input, Error> {
    let bytes = encoding.decode_bytes(ids).map_err(|unknown| {
        let id = unknown.token;
        Error::invalid(
            "input",
            format!("token id {id} is not in {name}, which this model's token_ids are"),
        )
    })?;
    // A text that was split into chunks of tokens may be cut within a character.
    Ok(Input::Text(String::from_utf8_lossy(&bytes).into_owned()))
}
