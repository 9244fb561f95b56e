//! The hooks that a component exports, as wasmtime finds them.

use embedgate_request::Hook;
use wasmtime::component::InstancePre;

use super::{
    bindings::exports::embedgate::plugin::{authenticator, lifecycle, observer, preprocessor},
    inspect::Inspection,
    state::GuestState,
};

/// The hooks that a component exports.
pub(super) struct Exports {
    pub(super) lifecycle: Option<lifecycle::GuestIndices>,
    pub(super) authenticator: Option<authenticator::GuestIndices>,
    pub(super) preprocessor: Option<preprocessor::GuestIndices>,
    pub(super) observer: Option<observer::GuestIndices>,
}

impl Exports {
    /// Looks up what is called: `lifecycle.init` where it is there, and these hooks.
    pub(super) fn of(
        pre: &InstancePre<GuestState>,
        inspection: &Inspection,
        hooks: &[Hook],
    ) -> anyhow::Result<Self> {
        let lifecycle = inspection.has_lifecycle;
        let has = |hook| hooks.contains(&hook);
        Ok(Self {
            lifecycle: lifecycle
                .then(|| lifecycle::GuestIndices::new(pre))
                .transpose()?,
            authenticator: has(Hook::Authenticate)
                .then(|| authenticator::GuestIndices::new(pre))
                .transpose()?,
            preprocessor: has(Hook::Preprocess)
                .then(|| preprocessor::GuestIndices::new(pre))
                .transpose()?,
            observer: has(Hook::Observe)
                .then(|| observer::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    /// The hooks that are called.
    pub(super) fn hooks(&self) -> impl Iterator<Item = Hook> {
        let has = [
            self.authenticator.is_some(),
            self.preprocessor.is_some(),
            self.observer.is_some(),
        ];
        let with = Hook::ALL.into_iter().zip(has);
        with.filter_map(|(hook, has)| has.then_some(hook))
    }
}
