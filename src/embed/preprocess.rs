//! The work of plugins on a request, before anything is looked up for it.

use embedgate_plugin_host::Plugins;
use embedgate_request::{EmbedRequest, Error, ErrorKind, Input, Principal, RequestContext};

use super::{
    Embedder,
    inputs::{self, Encoding},
};
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
        self.check_allowed(ctx, request.model.as_deref())?;
        let mut request = Preprocessed::unchanged(request);
        if plugins.has_preprocessors() {
            self.decode_ids(&mut request.request).await?;
            let names_of = |name: &str| {
                let entry = self.registry().find_for(&Principal::Anonymous, Some(name));
                let names = entry.map(|entry| entry.names().map(str::to_owned).collect());
                // A model that is not here: a plugin may well say which one is meant.
                names.unwrap_or_else(|_| vec![name.to_owned()])
            };
            request.headers = plugins
                .preprocess(ctx, &mut request.request, names_of)
                .await?;
            if self.unread_encoding(&request.request).is_some() {
                return Err(unseen(&request.request));
            }
        }
        Ok(request)
    }

    /// Refuses a model that is here and not the caller's, before any work; such a request counts towards no limit.
    fn check_allowed(&self, ctx: &RequestContext, model: Option<&str>) -> Result<(), Error> {
        match self.registry().find_for(&ctx.principal, model) {
            Err(error) if error.kind == ErrorKind::Forbidden => {
                let identity = ctx.principal.identity();
                if let Some(allowance) = identity.and_then(|who| who.allowance.as_ref()) {
                    allowance.forget_request();
                }
                Err(error)
            }
            // A plugin may name another one.
            _ => Ok(()),
        }
    }

    /// Bytes of the texts that the request's token ids stand for.
    #[must_use]
    pub(crate) fn decoded_bytes(&self, request: &EmbedRequest) -> usize {
        let Some(encoding) = self.unread_encoding(request) else {
            return 0;
        };
        let bytes = |input: &Input| match input {
            Input::Text(_) => 0,
            Input::Tokens(ids) => encoding.decoded_bytes(ids),
        };
        request.inputs.iter().map(bytes).sum()
    }

    /// Makes texts of token ids that stand for texts, so that plugins see what the model will.
    async fn decode_ids(&self, request: &mut EmbedRequest) -> Result<(), Error> {
        let Some(encoding) = self.unread_encoding(request) else {
            return Ok(());
        };
        let inputs = std::mem::take(&mut request.inputs);
        let bytes = Input::total_bytes(&inputs);
        let decode = move || inputs::decode(encoding, inputs);
        request.inputs = offload::run_if(bytes >= super::PREPARE_ELSEWHERE, decode).await??;
        Ok(())
    }

    /// The encoding of the request's token ids, where it has some that stand for text.
    fn unread_encoding(&self, request: &EmbedRequest) -> Option<Encoding> {
        let is_ids = |input: &Input| matches!(input, Input::Tokens(_));
        if !request.inputs.iter().any(is_ids) {
            return None;
        }
        // Where there is no such model, a plugin may still name one: ids are read as the dialect has them.
        let asked = request.model.as_deref();
        let entry = self.registry().find_for(&Principal::Anonymous, asked).ok();
        let configured = entry.and_then(|entry| entry.config.token_ids);
        Encoding::of(configured.unwrap_or(request.token_ids))
    }
}

/// Token ids that the plugins were shown as such, and that the model which a plugin chose would read as text.
fn unseen(request: &EmbedRequest) -> Error {
    let model = request.model.as_deref().unwrap_or_default();
    Error::invalid(
        "input",
        format!(
            "a plugin chose model \"{model}\", which reads these token ids as text that no plugin has seen: send texts"
        ),
    )
}
