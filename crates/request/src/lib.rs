//! One request, whoever serves it: its words, its caller, its limits, its answer, and the errors that it can get.
//!
//! The modules in reading order: [`vocabulary`] has the words that the configuration, plugins and dialects share;
//! [`request`] and [`response`] are what is asked and answered; [`principal`] is the caller, with what [`limits`] leave
//! them and what they hold of the [`memory`] of all requests; [`error`] is the one type of error that leaves the service; [`timings`] is where a request's time went.
//! [`key`] has the secrets by which keys and inputs are hashed.
//!
//! It knows no HTTP, no configuration file, no model and no plugin.

pub mod error;
pub mod key;
pub mod limits;
pub mod memory;
pub mod principal;
pub mod request;
pub mod response;
pub mod timings;
pub mod vector_text;
pub mod vocabulary;

pub use error::{Error, ErrorKind, List, ListEntry};
pub use key::{HashKey, KeyHash};
pub use limits::{Allowance, LimitConfig, Limits};
pub use memory::{Account, Held, Holder, Memory};
pub use principal::{Begun, Identity, Principal, RequestContext};
pub use request::{EmbedRequest, Input};
pub use response::{Cut, Dense, EmbedResponse, Embedding, MOST_COUNTED};
pub use timings::{BatchRun, OpenSpan, Span, Step, Timings};
pub use vector_text::VectorText;
pub use vocabulary::{
    Hook, InputKind, Lane, LongDocuments, NamePattern, Route, Side, TokenIds, Truncation,
};
