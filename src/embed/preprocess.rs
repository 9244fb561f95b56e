//! The work of plugins on a request, before anything is looked up for it.

use embedgate_plugin_host::Plugins;
use embedgate_request::{EmbedRequest, Error, Input, Principal, RequestContext};

use super::{
    Embedder, Target,
    inputs::{self, Encoding},
    pipeline::PREPARE_ELSEWHERE,
};
use crate::blocking;

/// A request that plugins have not seen.
pub(crate) struct Incoming {
    pub(crate) request: EmbedRequest,
    /// The model of its name; none where there is none, and a plugin may name another.
    pub(crate) found: Option<Target>,
    /// True for a reranking, whose inputs are a query and documents.
    pub(crate) ranks: bool,
}

/// A request that the plugins have seen, and its model. Only such a one is embedded, so that no dialect can forget to ask
/// them, or whether the caller may use the model.
#[derive(Clone)]
pub(crate) struct Preprocessed {
    pub(super) request: EmbedRequest,
    pub(super) headers: Vec<(String, String)>,
    pub(super) target: Target,
    /// The model that serves the query of a reranking, where it is another one.
    pub(super) for_queries: Option<Target>,
}

impl Preprocessed {
    /// A request that no plugin is to see: one that no client sent.
    #[must_use]
    pub(crate) fn unchanged(request: EmbedRequest, target: Target) -> Self {
        Self {
            request,
            headers: Vec::new(),
            target,
            for_queries: None,
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

    /// The request's model.
    #[must_use]
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The same request, whose query another model serves.
    #[must_use]
    pub(crate) fn with_target_for_queries(self, target: Target) -> Self {
        Self {
            for_queries: Some(target),
            ..self
        }
    }

    /// The same request for its model in another state.
    #[must_use]
    pub(crate) fn with_target(self, target: Target) -> Self {
        Self { target, ..self }
    }
}

impl Embedder {
    /// Lets the plugins change a request. A plugin may name another model than the one that was found, or one where none was; the
    /// caller must be allowed to use that, too.
    ///
    /// # Errors
    /// A plugin's refusal; `Unavailable` where one fails that must not; as [`Target::find`].
    pub(crate) async fn preprocess(
        &self,
        ctx: &RequestContext,
        plugins: &Plugins,
        incoming: Incoming,
    ) -> Result<Preprocessed, Error> {
        let before = match plugins.has_preprocessors() {
            true => self.before_plugins(&incoming),
            false => None,
        };
        let Incoming {
            mut request,
            found,
            ranks,
        } = incoming;
        let mut headers = Vec::new();
        if plugins.has_preprocessors() {
            decode_ids(&mut request, before.as_ref()).await?;
            let names_of = |name: &str| self.names_of(name);
            headers = plugins.preprocess(ctx, &mut request, names_of).await?;
        }
        let asked = request.model.as_deref();
        let target = match found.filter(|found| found.is_asked_as(asked)) {
            Some(target) => target,
            None => Target::find(self.registry(), &ctx.principal, asked)?,
        };
        let target = match ranks {
            true => target,
            false => target.for_kind(self.registry(), request.kind)?,
        };
        if plugins.has_preprocessors() && unread_encoding(&request, Some(&target)).is_some() {
            return Err(unseen(&request));
        }
        Ok(Preprocessed {
            request,
            headers,
            target,
            for_queries: None,
        })
    }

    /// Bytes of the texts that a request's token ids stand for.
    #[must_use]
    pub(crate) fn decoded_bytes(&self, incoming: &Incoming) -> usize {
        match has_ids(&incoming.request) {
            true => decoded_bytes(&incoming.request, self.before_plugins(incoming).as_ref()),
            false => 0,
        }
    }

    /// The model that a request is for unless a plugin changes that; none where it is not there.
    fn before_plugins(&self, incoming: &Incoming) -> Option<Target> {
        let found = incoming.found.clone()?;
        match incoming.ranks {
            true => Some(found),
            false => found.for_kind(self.registry(), incoming.request.kind).ok(),
        }
    }

    /// All names of a model; the given one where it is not here: a plugin may well say which model is meant.
    fn names_of(&self, name: &str) -> Vec<String> {
        let entry = self.registry().find_for(&Principal::Anonymous, Some(name));
        let names = entry.map(|entry| entry.names().map(str::to_owned).collect());
        names.unwrap_or_else(|_| vec![name.to_owned()])
    }
}

fn decoded_bytes(request: &EmbedRequest, target: Option<&Target>) -> usize {
    let Some(encoding) = unread_encoding(request, target) else {
        return 0;
    };
    let bytes = |input: &Input| match input {
        Input::Text(_) => 0,
        Input::Tokens(ids) => encoding.decoded_bytes(ids),
    };
    request.inputs.iter().map(bytes).sum()
}

/// Makes texts of token ids that stand for texts, so that plugins see what the model will.
async fn decode_ids(request: &mut EmbedRequest, target: Option<&Target>) -> Result<(), Error> {
    let Some(encoding) = unread_encoding(request, target) else {
        return Ok(());
    };
    let inputs = std::mem::take(&mut request.inputs);
    let bytes = Input::total_bytes(&inputs);
    let decode = move || inputs::decode(encoding, inputs);
    request.inputs = blocking::run_if_large(bytes >= PREPARE_ELSEWHERE, decode).await??;
    Ok(())
}

fn has_ids(request: &EmbedRequest) -> bool {
    let is_ids = |input: &Input| matches!(input, Input::Tokens(_));
    request.inputs.iter().any(is_ids)
}

/// The encoding of the request's token ids, where it has some that stand for text. Where there is no such model, a plugin
/// may still name one: ids are read as the dialect has them.
fn unread_encoding(request: &EmbedRequest, target: Option<&Target>) -> Option<Encoding> {
    if !has_ids(request) {
        return None;
    }
    let configured = target.and_then(|target| target.entry().config.token_ids);
    Encoding::of(configured.unwrap_or(request.token_ids))
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
