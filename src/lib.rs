//! embedgate serves embeddings by model name from local backends over the dialects that clients speak.
//!
//! The life of a request, which is also the order to read the modules in: [`http`] accepts it, gives it an id, asks
//! [`auth`] who is there and parses the dialect into one [`embedgate_request::EmbedRequest`]; [`embed`] resolves the model in the
//! [`model`] registry, validates, looks every input up in the [`cache`], admits the misses and hands them to the model's
//! tokenizer and to its [`batch`]er, whose worker thread runs the backend; the rows come back, fill the cache, are cut
//! and normalized, and [`http`] renders them. [`embedgate_config`] is read once, by [`app`], which composes all of it.
//!
//! ARCHITECTURE.md has the map and the invariants.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the documentation is for those who change the gateway: it is built with its private items"
)]

mod app;
mod args;
mod auth;
mod batch;
mod blocking;
mod cache;
mod commands;
mod embed;
mod http;
#[cfg(feature = "hub")]
mod hub;
mod model;
mod model_host;
mod reload;
mod shutdown;
mod telemetry;
#[cfg(test)]
mod testing;
mod usage;
mod whole_file;

pub use self::{
    args::Cli,
    commands::{BAD_USAGE, run},
    model::tokenizer::{TextTokenizer, Tokenized, vocabulary::Token},
};
