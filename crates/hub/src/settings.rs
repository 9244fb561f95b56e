//! Settings of a pull, which the environment and the configuration give.

use std::time::Duration;

use crate::{endpoint::Endpoint, existing::Caches};

/// Settings that the environment gives.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hubs that are asked.
    pub endpoints: Vec<Endpoint>,
    /// For Hugging Face.
    pub hugging_face_token: Option<String>,
    /// For ModelScope.
    pub modelscope_token: Option<String>,
    /// Connections at a time, of all files together.
    pub connections: usize,
    /// A pause after the first failure; the next are twice as long each.
    pub first_pause: Duration,
    /// True when a model is taken from the first hub of the list that has it, and not from the first hub that answers.
    pub is_ordered: bool,
    /// The caches in which files may exist already.
    pub caches: Caches,
}
