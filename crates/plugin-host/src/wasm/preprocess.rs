//! The hook that changes a request.

mod caller;
mod edits;

use std::{sync::Arc, time::Instant};

use embedgate_config::NativeIds;
use embedgate_request::{EmbedRequest, Error, Hook, Identity, Input, InputKind};

use self::caller::Caller;
use super::{
    bindings::{embedgate::plugin::types, exports::embedgate::plugin::preprocessor},
    exports::Exports,
    failure::Failure,
    guest::{CallBudget, Cost, Guest},
    instance::{LEAST_TRANSFER, Live},
    refusal,
};

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

/// A call about a request: its id and its end, and who the caller is.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) id: &'a Arc<str>,
    /// The time at which the request's time is over.
    pub(super) deadline: Instant,
    pub(super) caller: Option<&'a Identity>,
}

/// Lets a plugin change a request.
///
/// # Errors
/// The [`Failure`] of the plugin; then the request is unchanged.
pub(super) async fn preprocess(
    guest: &Guest,
    asked: Call<'_>,
    request: &mut EmbedRequest,
) -> (Result<Change, Failure>, Cost) {
    let (result, cost) = call(guest, asked, request).await;
    let change = match result {
        Err(failure) => Err(failure),
        Ok(Err(rejection)) => refusal::refusal(rejection).map(Change::Refused),
        Ok(Ok(types::Outcome::Unchanged)) => Ok(Change::Done(Vec::new())),
        Ok(Ok(types::Outcome::Edited(edits))) => {
            edits::apply(edits, request, guest.shared.max_texts).map(Change::Done)
        }
    };
    guest.count_illegal(Hook::Preprocess, &change);
    (change, cost)
}

type Answer = Result<types::Outcome, types::Rejection>;

async fn call(
    guest: &Guest,
    Call {
        id,
        deadline,
        caller,
    }: Call<'_>,
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
    let call = async |exports: &Exports, live: &mut Live| {
        let indices = exports.preprocessor.as_ref();
        let indices = indices.expect("only plugins that preprocess are asked");
        let hook = indices.load(&mut live.store, &live.instance)?;
        hook.call_preprocess(&mut live.store, asked, caller).await
    };
    let bytes = Input::total_bytes(&request.inputs);
    let budget = CallBudget {
        hook: Hook::Preprocess,
        request_id: id,
        deadline,
        max_transfer: LEAST_TRANSFER + 4 * bytes,
    };
    guest.call(&budget, call).await
}
