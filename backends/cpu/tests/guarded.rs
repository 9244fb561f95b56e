//! Runs the engine with every larger allocation at the end of its pages, before one that nobody may touch: who reads or writes
//! beyond it, the library's compiled products included, ends the process. Sanitizers do not see what those do.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/memory.rs"]
mod memory;
#[path = "engine/odd_model.rs"]
mod odd_model;
#[path = "support/precisions.rs"]
mod precisions;
#[path = "support/reference.rs"]
mod reference;
#[path = "support/load.rs"]
mod support;

use std::{path::Path, process::Command};

use embedgate_core::{Backend, Head, ModelFolder, Outputs};

#[global_allocator]
static ALLOCATOR: memory::Guarded = memory::Guarded;

#[test]
fn all_heads_stay_within_their_buffers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    let folder = ModelFolder::open(&path).unwrap();
    for precision in precisions::precisions() {
        for lengths in [&[1][..], &[17, 1, 130], &[512, 3, 511], &[2; 9]] {
            // A new one: buffers that held more rows have room behind these.
            let mut backend = support::load(&folder, precision);
            let batch = reference::batch(lengths, folder.encoder.vocabulary_size());
            let results = backend.embed(&batch, Outputs::BGE_M3).unwrap();
            let dense = results.vectors(Head::Dense).unwrap();
            assert!(dense.data.iter().all(|x| x.is_finite()), "{precision}");
        }
    }
}

/// Every family's way through the engine: heads that share keys, windows, biases by distance, gates, narrow embeddings.
#[test]
fn every_family_stays_within_its_buffers() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families");
    let names = families.read_dir().unwrap();
    let mut n = 0;
    for path in names.map(|entry| entry.unwrap().path()) {
        let folder = ModelFolder::open(&path).unwrap();
        for precision in precisions::precisions() {
            let mut backend = support::load(&folder, precision);
            let outputs = backend.info().outputs.main();
            for lengths in [&[1][..], &[17, 1, 130], &[2; 9]] {
                let batch = reference::batch(lengths, folder.encoder.vocabulary_size());
                backend.embed(&batch, outputs).unwrap();
                n += 1;
            }
        }
    }
    assert!(n >= 60, "{n}");
}

/// Tests that the guard works: this test runs itself in a process that reads one number too many.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test is a program of its own"
)]
fn a_read_beyond_an_allocation_ends_the_process() {
    let name = "a_read_beyond_an_allocation_ends_the_process";
    if std::env::var_os("READ_TOO_MUCH").is_some() {
        memory::read_beyond(&vec![1.0; 1000]);
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", name]).env("READ_TOO_MUCH", "1");
    let ended = command.output().unwrap().status;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(11),
        "{ended}"
    );
}
