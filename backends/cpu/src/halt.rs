//! The ways in which a forward pass ends early.

use crate::onednn::OneDnnError;

/// The reasons why a forward pass ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The caller said so in a pause.
    Stopped,
    Failed(OneDnnError),
}

impl From<OneDnnError> for Halt {
    fn from(error: OneDnnError) -> Self {
        Self::Failed(error)
    }
}

/// Called between two steps.
pub(crate) type Pause<'a> = dyn FnMut() -> Result<(), Halt> + Send + 'a;
