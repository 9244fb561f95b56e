//! The tests that need what `scripts/test` sets up: the real model, oneDNN, ONNX Runtime and its plugin, guests in JavaScript and Python, and
//! the client libraries. Plain `cargo test` leaves them out.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod backends;
mod bad_onnx;
mod bench_backend;
mod clients;
mod config_schema;
mod contract;
mod convert;
mod demo;
mod engine;
mod examples;
mod formats;
mod guests;
mod hub;
mod hub_onnx;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod page;
mod reference;
mod rerank;
mod schemathesis;
mod support;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod webgpu;
