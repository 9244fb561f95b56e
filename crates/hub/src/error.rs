//! Errors, in words that name the model, the cause and the mend.

use std::{io, path::PathBuf};

use thiserror::Error;

use embedgate_config::Hub;

/// The reasons why a model could not be fetched.
#[derive(Debug, Error)]
pub enum HubError {
    /// The hub has no such model, or does not show it to this caller.
    #[error(
        "{endpoint} has no model {model}: it does not exist, or it is private and needs a token ({variable}){words}"
    )]
    NoModel {
        /// The model.
        model: String,
        /// The hub that was asked.
        endpoint: String,
        /// The variable that holds a token.
        variable: &'static str,
        /// The hub's own words.
        words: String,
    },
    /// The model has no such revision.
    #[error("{endpoint} has no revision {revision} of {model}: its usual branch is \"{usual}\"")]
    NoRevision {
        /// The model.
        model: String,
        /// The request.
        revision: String,
        /// The hub's usual branch.
        usual: &'static str,
        /// The hub that was asked.
        endpoint: String,
    },
    /// The model's owner wants to be asked first.
    #[error(
        "{model} is gated at {endpoint}: accept its terms on its page there, and set {variable} to a token of yours{words}"
    )]
    Gated {
        /// The model.
        model: String,
        /// The hub that was asked.
        endpoint: String,
        /// The variable that holds a token.
        variable: &'static str,
        /// The hub's own words.
        words: String,
    },
    /// The token is none, or was withdrawn.
    #[error("{endpoint} does not take the token of {variable}: make a new one on its page{words}")]
    Token {
        /// The hub that it was sent to.
        endpoint: String,
        /// The variable that holds it.
        variable: &'static str,
        /// The hub's own words.
        words: String,
    },
    /// A server answered with what is no answer.
    #[error("{what} answers {status}{words}")]
    Status {
        /// The request.
        what: String,
        /// The status.
        status: u16,
        /// The server's own words.
        words: String,
    },
    /// A server cannot be reached, or the connection broke.
    #[error("{what}: {problem}")]
    Network {
        /// The request.
        what: String,
        /// The cause of the failure.
        problem: String,
    },
    /// A listing that cannot be believed.
    #[error("{0}")]
    Listing(String),
    /// A file whose bytes are not those that the hub lists.
    #[error(
        "{path} is not what {endpoint} lists, after {tries} tries: {problem}. Somebody may have changed it meanwhile: pull again, or from another hub by --from"
    )]
    Wrong {
        /// The file.
        path: String,
        /// The hub that gave it.
        endpoint: String,
        /// The number of tries.
        tries: usize,
        /// The difference.
        problem: String,
    },
    /// No hub has the model; each with its reason.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoHub(Vec<HubError>),
    /// The environment says that nothing may be fetched.
    #[error(
        "{0} says that nothing may be fetched: take it away, or put the model's folder there by hand"
    )]
    Offline(&'static str),
    /// The folder holds another model.
    #[error("{} holds {model}: name another folder by --to, or remove that one first: `embedgate models remove {}`", folder.display(), folder.display())]
    Other {
        /// The folder.
        folder: PathBuf,
        /// The source of the model that is there.
        model: String,
    },
    /// Too little room.
    #[error("{} has {free} MB free, the model needs {needed} MB: make room, or name a folder on another disk by --to", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Megabytes that are free.
        free: u64,
        /// Megabytes that are needed.
        needed: u64,
    },
    /// The disk became full.
    #[error("the disk of {} is full: make room; what came stays, and the same pull goes on", folder.display())]
    Full {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder that somebody else filled.
    #[error("{} was not fetched by pull, and has {problem}: name another folder by --to, or move it away", folder.display())]
    Theirs {
        /// The folder.
        folder: PathBuf,
        /// The file that would be lost, or taken for the model's.
        problem: String,
    },
    /// A folder that cannot be exchanged.
    #[error("{} {problem}: name another folder by --to", folder.display())]
    Target {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        problem: &'static str,
    },
    /// Another process fetches the same.
    #[error("{} is being fetched by process {holder}: wait for it, or end it", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
        /// The process.
        holder: String,
    },
    /// A file of this machine.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A record that is not one.
    #[error("{}: {problem}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The mistake.
        problem: String,
    },
}

impl HubError {
    /// Makes an error of a file of what the system says.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull => Self::Full { folder: path },
            _ => Self::File { path, error },
        }
    }

    /// Returns the error with the names of the model and the revision, which the code that meets the error does not
    /// know.
    pub(crate) fn of(mut self, of_model: &str, of_revision: &str) -> Self {
        if let Self::NoModel { model, .. }
        | Self::Gated { model, .. }
        | Self::NoRevision { model, .. } = &mut self
        {
            of_model.clone_into(model);
        }
        if let Self::NoRevision { revision, .. } = &mut self {
            of_revision.clone_into(revision);
        }
        self
    }

    /// True where another try may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            // ModelScope refuses public models now and then.
            Self::Status { status, .. } => matches!(status, 403 | 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// The variable that holds a hub's token.
pub(crate) fn token_variable(hub: Hub) -> &'static str {
    match hub {
        Hub::HuggingFace => "HF_TOKEN",
        Hub::ModelScope => "MODELSCOPE_API_TOKEN",
    }
}

/// An error with all that it was caused by.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "no byte came in time".to_owned(),
        error if error.is_connect() => "no connection".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
