//! What plugins do to a request before anything is looked up for it.

use std::sync::Arc;

use embedgate_plugin_host::Plugins;
use embedgate_request::{EmbedRequest, Error, Input, RequestContext, TokenIds};

use super::{Embedder, inputs};
use crate::offload;

/// A request that the plugins have seen. Only such a one is embedded, so no dialect can forget to ask them.
#[derive(Clone, Debug)]
pub(crate) struct Preprocessed {
    request: EmbedRequest,
    headers: Vec<(String, String)>,
}

impl Preprocessed {
    /// A request that no plugin is to see: one that no client sent.
    #[must_use]
    pub(crate) fn unchanged(request: EmbedRequest) -> Self {
        Self {
            request,
            headers: Vec::new(),
        }
    }

    /// The request as it is now.
    #[must_use]
    pub(crate) fn get(&self) -> &EmbedRequest {
        &self.request
    }

    /// Bytes by which plugins made its inputs grow, which count as if the client had sent them.
    #[must_use]
    pub(crate) fn grown(&self, before: usize) -> usize {
        Input::total_bytes(&self.request.inputs).saturating_sub(before)
    }

    pub(super) fn into_parts(self) -> (EmbedRequest, Vec<(String, String)>) {
        (self.request, self.headers)
    }
}

impl Embedder {
    /// Lets the plugins change a request.
    ///
    /// # Errors
    /// A plugin's refusal; Unavailable where one fails that must not.
    pub(crate) async fn preprocess(
        &self,
        ctx: &RequestContext,
        plugins: &Plugins,
        request: EmbedRequest,
    ) -> Result<Preprocessed, Error> {
        let mut request = Preprocessed::unchanged(request);
        if plugins.has_preprocessors() {
            self.decode_ids(&mut request.request).await?;
            let names_of = |name: &str| {
                let model = self.registry().resolve(Some(name));
                let names = model.map(|model| model.names().map(str::to_owned).collect());
                // A model that is not here: a plugin may well say which one is meant.
                names.unwrap_or_else(|_| vec![name.to_owned()])
            };
            request.headers = plugins
                .preprocess(ctx, &mut request.request, names_of)
                .await?;
        }
        Ok(request)
    }

    /// Makes texts of token ids that stand for texts, so that plugins see what the model will.
    async fn decode_ids(&self, request: &mut EmbedRequest) -> Result<(), Error> {
        let has_ids = matches!(request.inputs.first(), Some(Input::Tokens(_)));
        // Where there is no such model, a plugin may still name one; its own reading of ids is not known before.
        let Ok(model) = self.registry().resolve(request.model.as_deref()) else {
            return Ok(());
        };
        let policy = model.config.token_ids.unwrap_or(request.token_ids);
        if !has_ids || !matches!(policy, TokenIds::Cl100k | TokenIds::O200k) {
            return Ok(());
        }
        let inputs = std::mem::take(&mut request.inputs);
        let bytes = Input::total_bytes(&inputs);
        let model = Arc::clone(model);
        let decode = move || inputs::decode(&model, policy, inputs);
        request.inputs = offload::run_if(bytes >= super::PREPARE_ELSEWHERE, decode).await??;
        Ok(())
    }
}
