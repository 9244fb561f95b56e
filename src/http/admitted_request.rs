//! The steps that a request for embeddings passes in every dialect, from its body to its results.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use embedgate_request::{EmbedRequest, Error, ErrorKind, Held, Input, InputKind, RequestContext};

use super::{
    Gateway,
    answer::{PendingAnswer, answer_bytes},
    body::{self, WholeBody},
    context::Context,
    error::Failed,
    object::Source,
};
use crate::{
    blocking,
    embed::{Embedder, Incoming, Pipeline, Preprocessed, Target},
    model::Model,
};

/// Bodies of at least so many bytes are parsed off the threads that serve connections: about 1 ms of work.
const PARSE_ELSEWHERE: usize = 256 << 10;

/// A request that was let in, and its body.
pub(super) struct AdmittedRequest {
    pub(super) gateway: Arc<Gateway>,
    pub(super) ctx: RequestContext,
    body: WholeBody,
    /// The service as it was when the body was whole: the request is answered by the models of that moment.
    embedder: Arc<Embedder>,
}

impl FromRequest<Arc<Gateway>> for AdmittedRequest {
    type Rejection = Failed;

    /// Asks who the caller is, whether the models are there, and for the whole body within the server's limits.
    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Failed> {
        let (mut parts, body) = request.into_parts();
        let Context(ctx) = Context::from_request_parts(&mut parts, gateway).await?;
        gateway.embedder()?;
        let reading = ctx.timings.span("body");
        let body = body::read(&parts.headers, body, &gateway.config, &ctx).await?;
        drop(reading);
        Ok(Self {
            gateway: Arc::clone(gateway),
            ctx,
            body,
            embedder: gateway.embedder()?,
        })
    }
}

impl AdmittedRequest {
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
        let parsing = self.ctx.timings.span("parse");
        let (request, more, n_ignored) = self.read(parse).await??;
        drop(parsing);
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
        blocking::run_if_large(is_large, move || read(&mut Source::new(&bytes, max_inputs))).await
    }

    /// Finds the model of a request, where the caller may use it. A name that plugins may change is not an error yet.
    ///
    /// # Errors
    /// `ModelNotFound`, `Forbidden`.
    pub(super) fn find(self, request: EmbedRequest) -> Result<Found, Error> {
        let plugins = &self.gateway.plugins;
        let target = self
            .embedder
            .target_before_plugins(&self.ctx, plugins, &request)?;
        Ok(Found {
            admitted: self,
            request,
            target,
        })
    }

    /// Lets plugins see the request, and embeds its inputs.
    pub(super) async fn embed(self, request: EmbedRequest) -> Result<PendingAnswer, Error> {
        self.find(request)?.embed().await
    }
}

/// A request whose model was found, and which plugins have not seen.
pub(super) struct Found {
    admitted: AdmittedRequest,
    pub(super) request: EmbedRequest,
    target: Option<Target>,
}

impl Found {
    pub(super) fn ctx(&self) -> &RequestContext {
        &self.admitted.ctx
    }

    /// Lets plugins see the request, and has its model in memory. Of all models it keeps this one alone.
    async fn ready(self, ranks: bool) -> Result<ReadyRequest, Error> {
        let Self {
            admitted,
            request,
            target,
        } = self;
        let AdmittedRequest {
            gateway,
            ctx,
            body,
            embedder,
        } = admitted;
        let before = Input::total_bytes(&request.inputs);
        let plugins = &gateway.plugins;
        let incoming = Incoming {
            request,
            found: target,
            ranks,
        };
        let mut held = take_decoded(&gateway, &ctx, embedder.decoded_bytes(&incoming))?;
        let mut request = embedder.preprocess(&ctx, plugins, incoming).await?;
        let pipeline = embedder.pipeline();
        // Other models may leave while this one is used: they do not as long as somebody holds them.
        drop(embedder);
        if let Some(target) = gateway.wake(&ctx, request.target()).await? {
            request = request.with_target(target);
        }
        held.merge(ctx.memory.take(request.grown(before))?);
        Ok(ReadyRequest {
            ctx,
            request,
            pipeline,
            body,
            _held: held,
        })
    }

    /// As [`Found::ready`], with the model for queries in memory, too.
    pub(super) async fn ready_to_rank(self) -> Result<ReadyRequest, Error> {
        let gateway = Arc::clone(&self.admitted.gateway);
        let ready = self.ready(true).await?;
        let entry = ready.request.target().entry();
        match entry.config.query_model.is_some() && !entry.scores() {
            true => ready.with_model_for_queries(&gateway).await,
            false => Ok(ready),
        }
    }

    /// Lets plugins see the request, and embeds its inputs.
    pub(super) async fn embed(self) -> Result<PendingAnswer, Error> {
        let ready = self.ready(false).await?;
        let model = Arc::clone(ready.request.target().model()?);
        let bytes = answer_bytes(&model, ready.request.get());
        let ctx = ready.ctx;
        let memory = ctx.memory.take_for_answer(bytes, ctx.deadline).await?;
        let response = ready.pipeline.embed(&ctx, ready.request).await?;
        drop(ready.body);
        Ok(PendingAnswer {
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
pub(super) struct ReadyRequest {
    pub(super) ctx: RequestContext,
    pub(super) request: Preprocessed,
    pub(super) pipeline: Pipeline,
    /// Its memory is given back when what was parsed of it is gone, too.
    pub(super) body: WholeBody,
    /// The memory of decoded ids, and of what plugins added.
    _held: Held,
}

impl ReadyRequest {
    /// The same with the model for queries in memory, too. Both are of one moment: a reload exchanges them together.
    async fn with_model_for_queries(mut self, gateway: &Gateway) -> Result<Self, Error> {
        let (mut target, mut for_queries) = self.pair(gateway)?;
        if for_queries.is_on_demand() {
            // Others may have to leave for it, and this request must not hold one of them.
            self.request = self.request.with_target(target.without_model());
            drop(target);
            // Held until it is found again, or it could leave for others at once.
            let woken = gateway.wake(&self.ctx, &for_queries).await?;
            (target, for_queries) = self.pair(gateway)?;
            drop(woken);
        }
        let request = self.request.with_target(target);
        self.request = request.with_target_for_queries(for_queries);
        Ok(self)
    }

    /// The model of the request, and that of its query, as they are now.
    fn pair(&self, gateway: &Gateway) -> Result<(Target, Target), Error> {
        let service = gateway.embedder()?;
        let registry = service.registry();
        let target = self.request.target();
        let name = &target.entry().name;
        let entry = registry.entry(name);
        let entry = entry.ok_or_else(|| registry.not_found(&self.ctx.principal, name))?;
        let target = target.clone().with_entry(entry);
        let for_queries = target.clone().for_kind(registry, InputKind::Query)?;
        Ok((target, for_queries))
    }
}
