//! What is loaded, on the tiny bge-m3 of the tests.

use std::path::Path;

use embedgate_core::Outputs;

use super::*;
use crate::config::{Config, Environment};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_lost_backend_comes_back_with_the_weights_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::os::unix::fs::symlink(root().join("tests/fixtures/tiny-bge-m3"), &path).unwrap();
    let mut all = Config::default();
    all.onednn.library = Some(root().join(".embedgate/onednn"));
    let surroundings = Surroundings::new(&all, &Environment::default());
    let mut config = ModelConfig {
        path,
        ..ModelConfig::default()
    };
    config.backend.threads = Some(1);
    let plan = plan(&config).unwrap();
    let tokenizer = tokenizer(&plan).unwrap();
    let mut first = engine::open(&plan, &config, &tokenizer, &surroundings).unwrap();
    let batch: TokenBatch = std::iter::once([0, 9, 2].as_slice()).collect();
    let expected = first.embed(&batch, Outputs::BGE_M3).unwrap();

    let sharing = first.replicas().map(|replicas| (replicas, tokenizer));
    let with_weights = reload(&config, &surroundings, sharing);
    let from_files = reload(&config, &surroundings, None);
    drop(first);
    let again = from_files().unwrap().embed(&batch, Outputs::BGE_M3);
    assert_eq!(again.unwrap(), expected);
    folder.close().unwrap();
    assert!(from_files().is_err());
    let again = with_weights().unwrap().embed(&batch, Outputs::BGE_M3);
    assert_eq!(again.unwrap(), expected);
}
