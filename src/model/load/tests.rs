//! Tests of the result of a load, on the tiny bge-m3 of the tests.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use embedgate_config::{BackendType, Config, Device, Environment, ReplicaCount};
use embedgate_core::{BackendError, Outputs, Replicas, TokenBatch};

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn context() -> LoadContext {
    LoadContext::new(&Config::default(), &Environment::default())
}

/// The tiny bge-m3 in candle, which needs no library.
fn candle(path: PathBuf) -> ModelConfig {
    let mut config = ModelConfig {
        path,
        ..ModelConfig::default()
    };
    config.backend.kind = BackendType::Candle;
    config.backend.threads = Some(1);
    config
}

/// The model in the place that its configuration names.
fn resolved(loader: &Loader<'_>) -> ResolvedModel {
    let place = Placement::stated(&loader.config.backend, Device::Cpu);
    loader.resolve(&place).expect("candle runs everywhere")
}

#[test]
fn a_lost_backend_comes_back_with_the_weights_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::os::unix::fs::symlink(root().join("tests/fixtures/tiny-bge-m3"), &path).unwrap();
    let context = context();
    let config = candle(path);
    let plan = plan(&config).unwrap();
    let tokenizer = tokenizer(&plan).unwrap();
    let loader = Loader {
        name: "m",
        config: &config,
        plan: &plan,
        tokenizer: &tokenizer,
        context: &context,
    };
    let model = resolved(&loader);
    let open = || loader.open(&model, Device::Cpu);
    let mut first = open().unwrap();
    let batch: TokenBatch = std::iter::once([0, 9, 2].as_slice()).collect();
    let expected = first.embed(&batch, Outputs::BGE_M3).unwrap();

    // A replica that shares weights is opened from what is in memory.
    let in_memory = open().unwrap();
    let in_memory = Mutex::new(Some(in_memory));
    let replicas: Replicas = Arc::new(move || Ok(in_memory.lock().unwrap().take().unwrap()));
    let from_files = from_files(&loader, &model, Device::Cpu);
    let with_weights = reload(Some(replicas), tokenizer.clone(), Arc::clone(&from_files));
    // Where the weights are lost too, they are read again.
    let gone: Replicas = Arc::new(|| {
        let source = "the card had a fault".into();
        let what = "a batch";
        Err(BackendError::Lost { what, source })
    });
    let with_lost_weights = reload(Some(gone), tokenizer.clone(), Arc::clone(&from_files));
    drop(first);
    let again = with_lost_weights().unwrap().embed(&batch, Outputs::BGE_M3);
    assert_eq!(again.unwrap(), expected);
    let again = from_files().unwrap().embed(&batch, Outputs::BGE_M3);
    assert_eq!(again.unwrap(), expected);
    folder.close().unwrap();
    assert!(from_files().is_err());
    let again = with_weights().unwrap().embed(&batch, Outputs::BGE_M3);
    assert_eq!(again.unwrap(), expected);
}

#[test]
fn a_lost_backend_does_not_come_back_from_files_that_are_others() {
    let folder = tempfile::tempdir().unwrap();
    let from = root().join("tests/fixtures/tiny-bge-m3");
    for file in ["config.json", "tokenizer.json", "pytorch_model.bin"] {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    let (context, config) = (context(), candle(folder.path().to_owned()));
    let plan = plan(&config).unwrap();
    let tokenizer = tokenizer(&plan).unwrap();
    let loader = Loader {
        name: "m",
        config: &config,
        plan: &plan,
        tokenizer: &tokenizer,
        context: &context,
    };
    let model = resolved(&loader);
    let identity = Identity {
        folders: plan.folder.folders(),
        backend: model.backend.clone(),
        pooling: plan.pooling,
        max_tokens: plan.max_tokens,
        variant: String::new(),
        runs_on: String::new(),
    };
    let loaded = identity.at(FingerprintDepth::WithinProcess).unwrap();
    let from_files = from_files(&loader, &model, Device::Cpu);
    let again = of_the_same_files(
        identity,
        FingerprintDepth::WithinProcess,
        loaded,
        from_files,
    );
    assert!(again().is_ok());
    // It still loads, and is another model.
    let file = folder.path().join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("1e-05", "1e-04")).unwrap();
    let error = again().err().unwrap().to_string();
    assert!(error.contains("has changed since"), "{error}");
}

#[test]
fn replicas_are_counted_by_a_measurement_that_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let mut context = context();
    context.default_threads = 2;
    context.state_folder = Some(state.path().to_owned());
    let mut config = candle(root().join("tests/fixtures/tiny-bge-m3"));
    config.replicas = ReplicaCount::Auto;
    config.backend.threads = None;
    let plan = plan(&config).unwrap();
    let tokenizer = tokenizer(&plan).unwrap();
    let resolve = |context: &LoadContext| {
        let loader = Loader {
            name: "m",
            config: &config,
            plan: &plan,
            tokenizer: &tokenizer,
            context,
        };
        let model = loader.count_replicas(&resolved(&loader)).unwrap();
        model.replicas.get()
    };
    let found = resolve(&context);
    assert!((1..=2).contains(&found), "{found}");
    let files: Vec<_> = state
        .path()
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let one = |rate: f64| format!(r#"{{"replicas":1,"threads":2,"tokens_per_second":{rate}}}"#);
    let two = |rate: f64| format!(r#"{{"replicas":2,"threads":1,"tokens_per_second":{rate}}}"#);
    let file = &files[0];
    for (kept, expected) in [
        (format!("[{},{}]", one(10.0), two(20.0)), 2),
        (format!("[{},{}]", one(20.0), two(20.0)), 1),
    ] {
        std::fs::write(file, &kept).unwrap();
        assert_eq!(resolve(&context), expected, "{kept}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), kept);
    }
    // What no measurement of these replicas can be is measured again.
    for kept in [
        "[]".to_owned(),
        format!("[{}]", two(20.0)),
        format!("[{},{}]", one(1.0), two(0.0)),
        format!("[{},{},{}]", one(1.0), two(1.0), two(1.0)),
    ] {
        std::fs::write(file, &kept).unwrap();
        resolve(&context);
        assert_ne!(std::fs::read_to_string(file).unwrap(), kept);
    }
    context.default_threads = 1;
    assert_eq!(resolve(&context), 1);
    assert_eq!(
        state.path().read_dir().unwrap().count(),
        1,
        "nothing to measure with one thread"
    );
}
