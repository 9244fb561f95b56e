//! The hook that changes a request.

use std::{collections::HashSet, sync::Arc, time::Instant};

use embedgate_config::NativeIds;
use embedgate_request::{EmbedRequest, Error, Hook, Identity, Input, InputKind, Lane};

use super::{
    bindings::{embedgate::plugin::types, exports::embedgate::plugin::preprocessor},
    guest::{Cost, Failure, Guest, LEAST_TRANSFER, Terms},
    refusal,
};

const MOST_MODEL_BYTES: usize = 256;

/// The interface has no list of both.
const MIXED: &str = "texts and token ids in one request cannot be shown to a plugin";

/// Refuses inputs that a plugin would not see as what the model reads.
///
/// # Errors
/// `InvalidRequest` names the input and what would be right.
pub(super) fn check_shown(plugin: &str, policy: NativeIds, inputs: &[Input]) -> Result<(), Error> {
    let is_ids = |input: &Input| matches!(input, Input::Tokens(_));
    let Some(i) = inputs.iter().position(is_ids) else {
        return Ok(());
    };
    match policy {
        NativeIds::Refuse => Err(Error::invalid(
            "input",
            format!(
                "is token ids of the model's own, which plugin \"{plugin}\" cannot read: send texts, or let the operator set \
                 plugins.{plugin}.native_ids = \"show\""
            ),
        )
        .of_input(i)),
        NativeIds::Show if inputs.iter().all(is_ids) => Ok(()),
        NativeIds::Show => {
            let way_out = "send them in requests of their own";
            Err(Error::invalid("input", format!("{MIXED}: {way_out}")))
        }
    }
}

/// The answer of a preprocessor.
pub(super) enum Change {
    /// The request is changed, or not; these headers are added to its response.
    Done(Vec<(String, String)>),
    /// The request is refused.
    Refused(Error),
}

/// Lets a plugin change a request.
///
/// # Errors
/// The [`Failure`] of the plugin; then the request is unchanged.
pub(super) async fn preprocess(
    guest: &Guest,
    id: &Arc<str>,
    deadline: Instant,
    caller: Option<&Identity>,
    request: &mut EmbedRequest,
) -> (Result<Change, Failure>, Cost) {
    let (result, cost) = call(guest, id, deadline, caller, request).await;
    let change = match result {
        Err(failure) => Err(failure),
        Ok(Err(rejection)) => refusal::refusal(rejection).map(Change::Refused),
        Ok(Ok(types::Outcome::Unchanged)) => Ok(Change::Done(Vec::new())),
        Ok(Ok(types::Outcome::Edited(edits))) => {
            apply(edits, request, guest.shared.max_texts).map(Change::Done)
        }
    };
    guest.count_illegal(Hook::Preprocess, &change);
    (change, cost)
}

type Answer = Result<types::Outcome, types::Rejection>;

async fn call(
    guest: &Guest,
    id: &Arc<str>,
    deadline: Instant,
    caller: Option<&Identity>,
    request: &EmbedRequest,
) -> (Result<Answer, Failure>, Cost) {
    let (mut texts, mut ids) = (Vec::new(), Vec::new());
    for input in &request.inputs {
        match input {
            Input::Text(text) => texts.push(text.as_str()),
            Input::Tokens(tokens) => ids.push(tokens.as_slice()),
        }
    }
    let inputs = match (texts.is_empty(), ids.is_empty()) {
        (_, true) => types::Inputs::Texts(&texts),
        (true, false) => types::Inputs::Tokens(&ids),
        (false, false) => {
            let failure = Failure::Output(MIXED.into());
            return (Err(failure), Cost::default());
        }
    };
    let extra: Vec<_> = request
        .extra
        .iter()
        .map(|(name, json)| (name.as_str(), json.as_str()))
        .collect();
    let asked = preprocessor::EmbedRequest {
        id,
        model: request.model.as_deref().unwrap_or_default(),
        inputs,
        dimensions: request
            .dimensions
            .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        kind: match request.kind {
            InputKind::Unspecified => types::InputKind::Unspecified,
            InputKind::Query => types::InputKind::Query,
            InputKind::Document => types::InputKind::Document,
        },
        user: request.user.as_deref(),
        extra: &extra,
    };
    let caller = caller.map(Caller::of);
    let caller = caller.as_ref().map(Caller::lent);
    let call = async |exports: &super::guest::Exports, live: &mut super::guest::Live| {
        let indices = exports.preprocessor.as_ref();
        let indices = indices.expect("only plugins that preprocess are asked");
        let hook = indices.load(&mut live.store, &live.instance)?;
        hook.call_preprocess(&mut live.store, asked, caller).await
    };
    let bytes = Input::total_bytes(&request.inputs);
    let terms = Terms {
        hook: Hook::Preprocess,
        request_id: id,
        deadline,
        max_transfer: LEAST_TRANSFER + 4 * bytes,
    };
    guest.call(&terms, call).await
}

/// The lists of an identity as the guest's bindings borrow them.
struct Caller<'a> {
    identity: &'a Identity,
    scopes: Vec<&'a str>,
    models: Option<Vec<&'a str>>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Caller<'a> {
    fn of(identity: &'a Identity) -> Self {
        let models = identity.allowed_models.as_ref();
        Self {
            identity,
            scopes: identity.scopes.iter().map(String::as_str).collect(),
            models: models.map(|models| models.iter().map(|pattern| pattern.0.as_str()).collect()),
            attributes: identity
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        }
    }

    fn lent(&'a self) -> types::PrincipalParam<'a> {
        types::PrincipalParam {
            subject: &self.identity.subject,
            tenant: self.identity.tenant.as_deref(),
            scopes: &self.scopes,
            allowed_models: self.models.as_deref(),
            cache_namespace: None,
            lane: self.identity.lane.map(|lane| match lane {
                Lane::Query => types::Lane::Query,
                Lane::Bulk => types::Lane::Bulk,
            }),
            limit: None,
            valid_for_ms: 0,
            attributes: &self.attributes,
        }
    }
}

/// Changes the request, all or nothing. Its texts may then have `max_texts` bytes in sum.
fn apply(
    edits: types::Edits,
    request: &mut EmbedRequest,
    max_texts: usize,
) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |message: String| Err(Failure::Output(message));
    let headers = refusal::legal_headers(edits.response_headers, &[])?;
    if let Some(model) = &edits.model
        && (!(1..=MOST_MODEL_BYTES).contains(&model.len()) || model.chars().any(char::is_control))
    {
        return wrong(format!(
            "a model's name has 1 to {MOST_MODEL_BYTES} bytes without control characters"
        ));
    }
    if edits.dimensions == Some(0) {
        return wrong("dimensions are at least 1".into());
    }
    let n = request.inputs.len();
    let before = Input::total_bytes(&request.inputs);
    let after = match &edits.inputs {
        types::InputEdit::Keep => 0,
        types::InputEdit::Prefix(prefix) => before.saturating_add(prefix.len().saturating_mul(n)),
        // Some that are replaced still count: one bound for what the request and the guest hold together.
        types::InputEdit::Some(all) => before + all.iter().map(|new| new.text.len()).sum::<usize>(),
        types::InputEdit::All(texts) => texts.iter().map(String::len).sum(),
    };
    if after > max_texts {
        return wrong(format!(
            "made {after} bytes of text of {before}; {max_texts} are allowed"
        ));
    }
    let has_texts = matches!(request.inputs.first(), Some(Input::Text(_)));
    match edits.inputs {
        types::InputEdit::Keep => {}
        _ if !has_texts => return wrong("token ids cannot be edited".into()),
        types::InputEdit::Prefix(prefix) => {
            for input in &mut request.inputs {
                if let Input::Text(text) = input {
                    text.insert_str(0, &prefix);
                }
            }
        }
        types::InputEdit::Some(replacements) => {
            let mut seen = HashSet::with_capacity(replacements.len());
            for replacement in &replacements {
                let index = replacement.index as usize;
                if index >= n || !seen.insert(index) {
                    return wrong(format!(
                        "replaced input {index} of {n}, or replaced it twice"
                    ));
                }
            }
            for replacement in replacements {
                request.inputs[replacement.index as usize] = Input::Text(replacement.text);
            }
        }
        types::InputEdit::All(texts) => {
            if texts.len() != n {
                return wrong(format!("gave {} texts for {n} inputs", texts.len()));
            }
            request.inputs = texts.into_iter().map(Input::Text).collect();
        }
    }
    if let Some(model) = edits.model {
        request.model = Some(model);
    }
    if let Some(dimensions) = edits.dimensions {
        request.dimensions = Some(dimensions as usize);
    }
    if let Some(kind) = edits.kind {
        request.kind = match kind {
            types::InputKind::Unspecified => InputKind::Unspecified,
            types::InputKind::Query => InputKind::Query,
            types::InputKind::Document => InputKind::Document,
        };
    }
    Ok(headers)
}
