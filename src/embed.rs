//! The service behind every dialect: the models of the moment, and the pipeline that answers requests with them.

mod charge;
mod inputs;
mod missing;
mod pipeline;
mod postprocess;
mod preprocess;
mod rerank;
mod target;
mod task;

use embedgate_plugin_host::Plugins;
use embedgate_request::{EmbedRequest, Error, ErrorKind, Principal, RequestContext};

pub(crate) use self::{
    pipeline::Pipeline,
    preprocess::{Incoming, Preprocessed},
    rerank::{Length, Ranking},
    target::Target,
};
use crate::{
    cache::EmbeddingCache,
    model::{DEFAULT, ModelRegistry, RegistryEntry},
};

/// The service behind every dialect.
pub(crate) struct Embedder {
    registry: ModelRegistry,
    pipeline: Pipeline,
}

impl Embedder {
    /// Puts the service together.
    #[must_use]
    pub(crate) fn new(registry: ModelRegistry, cache: EmbeddingCache, max_inputs: usize) -> Self {
        Self {
            registry,
            pipeline: Pipeline { cache, max_inputs },
        }
    }

    /// The models.
    #[must_use]
    pub(crate) fn registry(&self) -> &ModelRegistry {
        &self.registry
    }

    /// The pipeline, which a request keeps when it has found its model. It holds no model.
    #[must_use]
    pub(crate) fn pipeline(&self) -> Pipeline {
        self.pipeline.clone()
    }

    /// The model that a request names, which its caller may use. A request for another model counts towards no limit.
    ///
    /// # Errors
    /// As [`ModelRegistry::find_for`].
    pub(crate) fn target(
        &self,
        ctx: &RequestContext,
        asked: Option<&str>,
    ) -> Result<Target, Error> {
        let found = Target::find(&self.registry, &ctx.principal, asked);
        found.inspect_err(|error| {
            let identity = ctx.principal.identity();
            let allowance = identity.and_then(|who| who.allowance.as_ref());
            if let (ErrorKind::Forbidden, Some(allowance)) = (error.kind, allowance) {
                allowance.forget_request();
            }
        })
    }

    /// The model of a request that plugins have not seen; none where there is no such model and a plugin may name one.
    ///
    /// # Errors
    /// As [`Embedder::target`].
    pub(crate) fn target_before_plugins(
        &self,
        ctx: &RequestContext,
        plugins: &Plugins,
        request: &EmbedRequest,
    ) -> Result<Option<Target>, Error> {
        match self.target(ctx, request.model.as_deref()) {
            Err(error) if error.kind != ErrorKind::Forbidden && plugins.has_preprocessors() => {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// The entry of a name, for somebody who asks about it: a model that is not theirs is as one that is not there.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names.
    pub(crate) fn shown(&self, principal: &Principal, name: &str) -> Result<&RegistryEntry, Error> {
        if name != DEFAULT && !self.registry.is_known(name) {
            return Err(self.registry.not_found(principal, name));
        }
        let hidden = |error: Error| match error.kind {
            ErrorKind::Forbidden => self.registry.not_found(principal, name),
            _ => error,
        };
        let found = self.registry.find_for(principal, Some(name));
        found.map_err(hidden)
    }

    /// Returns the same service with other models.
    #[must_use]
    pub(crate) fn with_registry(&self, registry: ModelRegistry) -> Self {
        Self {
            registry,
            pipeline: self.pipeline(),
        }
    }

    /// The cache.
    #[must_use]
    pub(crate) fn cache(&self) -> &EmbeddingCache {
        &self.pipeline.cache
    }

    /// Ends every model's queue and joins its workers. Blocks for the batches in flight.
    pub(crate) fn stop(self) {
        self.registry.stop();
    }
}

#[cfg(test)]
mod tests;
