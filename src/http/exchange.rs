//! The steps that a request for embeddings passes in every dialect, between the dialect's own parsing and its own
//! writing.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use embedgate_core::HeadForm;
use embedgate_request::{
    Cut, EmbedRequest, EmbedResponse, Embedding, Error, ErrorKind, Held, Input, RequestContext,
    VectorText,
};

use super::{
    Gateway,
    body::{self, WholeBody},
    context::Context,
    error::{Failed, add_headers},
    object::Source,
    trace::Work,
};
use crate::{
    embed::{Embedder, Pipeline, Preprocessed, decoded_bytes},
    model::Model,
    offload,
};

/// Bodies of at least so many bytes are parsed off the threads that serve connections: about 1 ms of work.
const PARSE_ELSEWHERE: usize = 256 << 10;
/// Answers with at least this many numbers are rendered off the threads that serve connections: about 5 ms of work.
const RENDER_ELSEWHERE: usize = 200_000;
/// Bytes that a number takes while it is answered: kept, copied, and written as text or as base64.
const BYTES_PER_NUMBER: usize = 4 + 4 + 13;
const BYTES_PER_BASE64_NUMBER: usize = 4 + 4 + 6;
/// Bytes that a lexical weight takes: id, weight, and both as text, perhaps with the token's own.
const BYTES_PER_WEIGHT: usize = 8 + 8 + 48;
/// The header that says which inputs were cut lists so many at most.
const MAX_TRUNCATED: usize = 32;

/// A request that was let in, and its body. It is answered even if the shutdown begins meanwhile.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) ctx: RequestContext,
    body: WholeBody,
    /// The service as it was when the body was whole: the request is answered by the models of that moment.
    embedder: Arc<Embedder>,
}

impl FromRequest<Arc<Gateway>> for Exchange {
    type Rejection = Failed;

    /// Asks who the caller is, whether the models are there, and for the whole body within the server's limits.
    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Failed> {
        let (mut parts, body) = request.into_parts();
        let Context(ctx) = Context::from_request_parts(&mut parts, gateway).await?;
        gateway.embedder()?;
        let body = body::read(&parts.headers, body, &gateway.config, &ctx).await?;
        Ok(Self {
            gateway: Arc::clone(gateway),
            ctx,
            body,
            // It was let in: it is answered even if the shutdown has begun.
            embedder: gateway.service()?,
        })
    }
}

impl Exchange {
    /// The service.
    pub(super) fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// The model of this name in memory, where the caller may use it, and the body, which holds its memory. Of all models the
    /// request keeps this one alone.
    ///
    /// # Errors
    /// `ModelNotFound`, `Forbidden`; `Unavailable` where it cannot be loaded, `DeadlineExceeded` where that takes too long.
    pub(super) async fn into_model(
        self,
        name: Option<&str>,
    ) -> Result<(Arc<Model>, WholeBody), Error> {
        let target = self.embedder.target(&self.ctx, name)?;
        drop(self.embedder);
        let woken = self.gateway.wake(&self.ctx, &target).await?;
        let model = Arc::clone(woken.unwrap_or(target).model()?);
        Ok((model, self.body))
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.body.bytes
    }

    /// The body, to be read where the handler runs: a small one.
    pub(super) fn source(&self) -> Source<'_> {
        Source::new(&self.body.bytes, self.gateway.config.max_inputs)
    }

    /// Parses a body with the dialect's parser.
    pub(super) async fn parse<T: Send + 'static>(
        &self,
        parser: impl FnOnce(&mut Source<'_>) -> Result<(EmbedRequest, T), Error> + Send + 'static,
    ) -> Result<(EmbedRequest, T), Error> {
        let has_preprocessors = self.gateway.plugins.has_preprocessors();
        let parse = move |source: &mut Source<'_>| {
            let (mut request, more) = parser(source)?;
            if has_preprocessors {
                request.extra = source.take_extra();
            }
            Ok::<_, Error>((request, more, source.n_ignored))
        };
        let (request, more, n_ignored) = self.read(parse).await??;
        self.gateway.metrics.ignored_members(n_ignored);
        Ok((request, more))
    }

    /// Reads a body, off the threads that serve connections where it is a large one.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Source<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (bytes, max_inputs) = (self.body.bytes.clone(), self.gateway.config.max_inputs);
        let is_large = bytes.len() >= PARSE_ELSEWHERE;
        offload::run_if(is_large, move || read(&mut Source::new(&bytes, max_inputs))).await
    }

    /// Finds the model of a request, lets plugins see it, and has the model in memory. Of all models it keeps this one alone.
    pub(super) async fn ready(self, request: EmbedRequest) -> Result<Ready, Error> {
        let Self {
            gateway,
            ctx,
            body,
            embedder,
        } = self;
        let before = Input::total_bytes(&request.inputs);
        let plugins = &gateway.plugins;
        let found = embedder.target_before_plugins(&ctx, plugins, &request)?;
        let decoded = decoded_bytes(&request, found.as_ref());
        let mut held = take_decoded(&gateway, &ctx, decoded)?;
        let mut request = embedder.preprocess(&ctx, plugins, request, found).await?;
        let pipeline = embedder.pipeline();
        // Other models may leave while this one is used: they do not as long as somebody holds them.
        drop(embedder);
        if let Some(target) = gateway.wake(&ctx, request.target()).await? {
            request = request.with_target(target);
        }
        held.merge(ctx.memory.take(request.grown(before))?);
        Ok(Ready {
            ctx,
            request,
            pipeline,
            body,
            _held: held,
        })
    }

    /// Lets plugins see the request, and embeds its inputs.
    pub(super) async fn embed(self, request: EmbedRequest) -> Result<Answer, Error> {
        let ready = self.ready(request).await?;
        let model = Arc::clone(ready.request.target().model()?);
        let bytes = answer_bytes(&model, ready.request.get());
        let ctx = ready.ctx;
        let memory = ctx.memory.take_for_answer(bytes, ctx.deadline).await?;
        let response = ready.pipeline.embed(&ctx, ready.request).await?;
        drop(ready.body);
        Ok(Answer {
            response,
            ctx,
            model,
            memory,
        })
    }
}

/// Takes the memory of the texts that token ids stand for, which are many times as long as the ids' digits.
///
/// # Errors
/// `PayloadTooLarge` where such a text could not have been sent as one.
fn take_decoded(gateway: &Gateway, ctx: &RequestContext, bytes: usize) -> Result<Held, Error> {
    let most = gateway.config.max_body.bytes();
    if bytes > most {
        let message = format!(
            "the token ids stand for {bytes} bytes of text, and a body has at most {most}: split the request"
        );
        return Err(Error::new(ErrorKind::PayloadTooLarge, message));
    }
    ctx.memory.take(bytes)
}

/// A request that plugins have seen, whose model is in memory.
pub(super) struct Ready {
    pub(super) ctx: RequestContext,
    pub(super) request: Preprocessed,
    pub(super) pipeline: Pipeline,
    /// Its memory is given back when what was parsed of it is gone, too.
    pub(super) body: WholeBody,
    /// The memory of decoded ids, and of what plugins added.
    _held: Held,
}

/// An answer that is still to be written, and the memory that it will take.
pub(super) struct Answer {
    pub(super) response: EmbedResponse,
    pub(super) ctx: RequestContext,
    pub(super) model: Arc<Model>,
    memory: Held,
}

impl Answer {
    /// Holds more memory until the answer is written.
    pub(super) fn keep(&mut self, more: Held) {
        self.memory.merge(more);
    }

    /// Writes the answer as the dialect does.
    pub(super) async fn write(
        self,
        render: impl FnOnce(&EmbedResponse) -> Vec<u8> + Send + 'static,
    ) -> Result<Response, Error> {
        let mut answer = self.response;
        let added = std::mem::take(&mut answer.headers);
        let work = Work {
            model: shown_name(&answer.model),
            n_inputs: answer.embeddings.len(),
            n_tokens: answer.n_tokens(),
            n_cached: answer.n_cached,
            n_truncated: answer.cuts().count(),
        };
        let cuts: Vec<Cut> = answer.cuts().collect();
        let numbers: usize = answer.embeddings.iter().map(numbers).sum();
        let json = offload::run_if(numbers >= RENDER_ELSEWHERE, move || render(&answer)).await?;
        let rendered = Rendered {
            json,
            memory: self.memory,
            added,
            cuts,
        };
        Ok(rendered.respond(work))
    }
}

/// A model's name as the log has it: where any name is taken, it is the client's text.
pub(super) fn shown_name(name: &str) -> String {
    let is_plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'));
    if name.len() <= 100 && name.chars().all(is_plain) {
        return name.to_owned();
    }
    let short = name.chars().take(100);
    short.flat_map(char::escape_debug).collect()
}

/// An answer as it is written.
pub(super) struct Rendered {
    pub(super) json: Vec<u8>,
    /// Its memory, until the last byte is written.
    pub(super) memory: Held,
    /// Headers that plugins add.
    pub(super) added: Vec<(String, String)>,
    /// The inputs that were cut.
    pub(super) cuts: Vec<Cut>,
}

impl Rendered {
    /// The response, with what the log is told.
    pub(super) fn respond(self, work: Work) -> Response {
        let mut response = json_body(self.json, self.memory);
        add_headers(response.headers_mut(), &self.added);
        if let Some(value) = truncated(&self.cuts) {
            response.headers_mut().insert("x-truncated", value);
        }
        response.extensions_mut().insert(work);
        response
    }
}

/// A body of JSON with its memory.
pub(super) fn json_body(json: Vec<u8>, memory: Held) -> Response {
    let body = body::holding(json, memory);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Numbers that are still to be written.
fn numbers(embedding: &Embedding) -> usize {
    let results = embedding.results.iter();
    results.map(|(_, value)| value.numbers().len()).sum()
}

/// Estimates the bytes of the answer before any work is done for it; results by token are counted approximately.
fn answer_bytes(model: &Model, request: &EmbedRequest) -> usize {
    let own = model.info.dimensions;
    let per_number = match request.text {
        Some(VectorText::Base64) => BYTES_PER_BASE64_NUMBER,
        Some(VectorText::Numbers) | None => BYTES_PER_NUMBER,
    };
    let (mut fixed, mut per_token) = (0, 0);
    for head in request.outputs.iter() {
        match head.form() {
            HeadForm::Vector => fixed += request.dimensions.unwrap_or(own).min(own) * per_number,
            HeadForm::Weights => per_token += BYTES_PER_WEIGHT,
            HeadForm::Rows { .. } => per_token += own * per_number,
            HeadForm::Score => fixed += per_number,
        }
    }
    let n_tokens = match per_token {
        0 => 0,
        _ => request
            .inputs
            .iter()
            .map(|input| model.reserve_tokens(input))
            .sum(),
    };
    request.inputs.len() * fixed + n_tokens * per_token
}

/// Which inputs were cut, as `index:from>to` in tokens, separated by commas; `...` where there are more. A query that
/// documents are ranked for is `query:from>to`. Where more are not counted, `from` is `>100000`.
fn truncated(cuts: &[Cut]) -> Option<HeaderValue> {
    let mut all: Vec<String> = cuts
        .iter()
        .map(|cut| match cut.index {
            Some(index) => format!("{index}:{cut}"),
            None => format!("query:{cut}"),
        })
        .take(MAX_TRUNCATED + 1)
        .collect();
    if all.is_empty() {
        return None;
    }
    if let Some(one_too_many) = all.get_mut(MAX_TRUNCATED) {
        *one_too_many = "...".into();
    }
    HeaderValue::from_str(&all.join(",")).ok()
}
