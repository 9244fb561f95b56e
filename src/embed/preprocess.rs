//! What plugins do to a request before anything is looked up for it.

use super::Embedder;
use crate::{
    error::Error,
    plugin::Plugins,
    request::{EmbedRequest, RequestContext},
};

/// A request that the plugins have seen. Only such a one is embedded, so no dialect can forget to ask them.
#[derive(Clone, Debug)]
pub struct Preprocessed {
    request: EmbedRequest,
    headers: Vec<(String, String)>,
}

impl Preprocessed {
    /// A request that no plugin is to see: one that no client sent.
    #[must_use]
    pub fn unchanged(request: EmbedRequest) -> Self {
        Self {
            request,
            headers: Vec::new(),
        }
    }

    /// The request as it is now.
    #[must_use]
    pub fn get(&self) -> &EmbedRequest {
        &self.request
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
    pub async fn preprocess(
        &self,
        ctx: &RequestContext,
        plugins: &Plugins,
        request: EmbedRequest,
    ) -> Result<Preprocessed, Error> {
        let mut request = Preprocessed::unchanged(request);
        if plugins.has_preprocessors() {
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
}
