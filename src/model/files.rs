//! The files that a model was loaded from.

use super::fingerprint::{FingerprintDepth, Identity};

/// The identity of the files that a model was loaded from.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The facts from which the model's identity is found once more.
    pub(super) identity: Identity,
    /// The identity at the load, at [`FingerprintDepth::WithinProcess`].
    pub(super) stamp: blake3::Hash,
    /// The hash that models share when their vectors can be compared.
    pub(crate) space: blake3::Hash,
}

impl Files {
    /// Returns true when the files are still those that were loaded.
    pub(crate) fn are_as_loaded(&self) -> bool {
        self.identity
            .at(FingerprintDepth::WithinProcess)
            .is_ok_and(|stamp| stamp == self.stamp)
    }
}
