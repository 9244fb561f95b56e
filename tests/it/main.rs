//! The integration tests: a module a subject, all against the real program or the real backends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod arrows;
mod bad_files;
mod bad_input;
mod bench;
mod cli;
mod clients;
mod config_file;
mod contract;
mod convert;
mod dialects;
mod invariants;
mod life;
mod openapi;
mod plugins;
mod reference;
mod sources;
mod support;
mod warm;
