//! Makes of a request's inputs what the cache and the model take. By arithmetic alone: no model is asked.

use std::sync::OnceLock;

use embedgate_core::PerHead;
use embedgate_request::{EmbedRequest, Error, Input, Lane, Principal, TokenIds};
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

use super::task::EmbedTask;
use crate::{
    cache::{CacheKey, EmbeddingCache, key::KeyParts},
    model::Model,
};

/// Requests of at most so many inputs and bytes are queries where nobody says otherwise: a question or a few, and less
/// than a page.
const QUERY_INPUTS: usize = 4;
const QUERY_BYTES: usize = 4096;
/// No id of `OpenAI`'s encodings is as large: o200k_base ends at 200,018.
const MOST_IDS: u32 = 210_000;

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
    task: &EmbedTask,
    request: EmbedRequest,
) -> Result<Vec<Prepared>, Error> {
    let model = &task.model;
    let policy = model.config.token_ids.unwrap_or(request.token_ids);
    let heads = request.outputs.iter();
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

/// Makes texts of the token ids of one of `OpenAI`'s encodings, and leaves texts.
pub(super) fn decode(encoding: Encoding, inputs: Vec<Input>) -> Result<Vec<Input>, Error> {
    let one = |(i, input)| match input {
        Input::Text(text) => Ok(Input::Text(text)),
        Input::Tokens(ids) => encoding.read(&ids).map_err(|error| error.of_input(i)),
    };
    inputs.into_iter().enumerate().map(one).collect()
}

/// One of `OpenAI`'s encodings: its token ids stand for text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encoding {
    Cl100k,
    O200k,
}

impl Encoding {
    /// The encoding that a policy reads token ids in; none where they are the model's own, or refused.
    pub(super) fn of(policy: TokenIds) -> Option<Self> {
        match policy {
            TokenIds::Cl100k => Some(Self::Cl100k),
            TokenIds::O200k => Some(Self::O200k),
            TokenIds::Native | TokenIds::Reject => None,
        }
    }

    /// Bytes of the text that ids stand for; ids that are unknown count nothing.
    pub(super) fn decoded_bytes(self, ids: &[u32]) -> usize {
        static LENGTHS: [OnceLock<Vec<u16>>; 2] = [const { OnceLock::new() }; 2];
        let lengths = LENGTHS[self as usize].get_or_init(|| self.lengths());
        let length = |id: &u32| lengths.get(*id as usize).copied().map_or(0, usize::from);
        ids.iter().map(length).sum()
    }

    /// Bytes of each token, by its id.
    fn lengths(self) -> Vec<u16> {
        let bpe = self.bpe();
        let length = |id| {
            let bytes = bpe.decode_bytes(&[id]).map_or(0, |bytes| bytes.len());
            u16::try_from(bytes).unwrap_or(u16::MAX)
        };
        (0..MOST_IDS).map(length).collect()
    }

    fn read(self, ids: &[u32]) -> Result<Input, Error> {
        if ids.is_empty() {
            return Err(no_ids());
        }
        let name = match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        };
        openai(self.bpe(), name, ids)
    }

    fn bpe(self) -> &'static CoreBPE {
        match self {
            Self::Cl100k => cl100k_base_singleton(),
            Self::O200k => o200k_base_singleton(),
        }
    }
}

fn no_ids() -> Error {
    Error::invalid("input", "a list of token ids must not be empty")
}

fn readable(model: &Model, policy: TokenIds, ids: Vec<u32>) -> Result<Input, Error> {
    if let Some(encoding) = Encoding::of(policy) {
        return encoding.read(&ids);
    }
    if ids.is_empty() {
        return Err(no_ids());
    }
    match policy {
        TokenIds::Reject => {
            let way_out = "send strings; LangChain: check_embedding_ctx_length=False";
            Err(Error::invalid(
                "input",
                format!("model \"{}\" takes no token ids: {way_out}", model.name),
            ))
        }
        _ => native(model, ids),
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
