//! The tests that need nothing but the fixtures: a module a subject, all against the real program or the real backends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod access;
mod arrows;
mod azure;
mod bad_bits;
mod bad_files;
mod bad_input;
mod bench;
mod cache_file;
mod cli;
mod cohere;
mod config_file;
mod contract;
mod convert;
mod cross_encoders;
mod cuda;
mod cuts;
mod doctor;
mod documents;
mod embed;
mod errors;
mod guests;
mod invariants;
mod jina;
mod layouts;
mod life;
mod members;
mod memory;
mod metrics;
mod ollama;
mod openapi;
mod outputs;
mod page;
mod peers;
mod plugins;
mod prompts;
mod reload;
mod rerank;
mod sources;
mod tei;
mod tokens;
mod traces;
mod usage;
mod variants;
