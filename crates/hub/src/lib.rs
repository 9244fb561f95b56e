//! Fetches models from the model hubs.
//!
//! [`Source`] is what a user names; [`pull()`] brings it into a folder. `huggingface` and `modelscope` know the two protocols: which
//! files a revision has, and where they are. `select` chooses the files that a server needs. `fetch` gets one file in parts, goes
//! on where it was broken off, and believes nothing but lengths and hashes; `existing` knows where other programs keep files, which
//! need not be fetched. `work_folder` is the folder in which a model is made, until it takes its place. `lock` is the record of what is there, which
//! [`verify`] reads.

mod client;
mod endpoint;
mod error;
mod existing;
mod fetch;
mod hash;
mod hubs;
mod huggingface;
mod listing;
mod lock;
mod modelscope;
mod part;
mod progress;
mod pull;
mod select;
mod settings;
mod tries;
mod work_folder;

pub use embedgate_config::{Hub, Source};

pub use crate::{
    endpoint::Endpoint,
    error::HubError,
    existing::Caches,
    hash::Check,
    listing::{ListedFile, Listing},
    lock::{
        LOCK_FILE, Lock, Locked,
        verify::{Verdict, verify},
    },
    progress::Progress,
    pull::{Pulled, Request, pull},
    select::Selection,
    settings::Settings,
};
