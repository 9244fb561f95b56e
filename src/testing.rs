//! The gateway in memory over a mock backend, for unit tests: the real router, pipeline, cache, queue and worker.

mod model;
#[cfg(feature = "plugins")]
mod plugins;
mod requests;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    time::Instant,
};

use axum::Router;
use embedgate_config::{AuthConfig, AuthMode, Config, UnknownModel};
use embedgate_metrics::Metrics;
use embedgate_mock::{Control, MockBackend};
use embedgate_plugin_host::{PluginContext, Plugins};
use embedgate_request::Memory;
use embedgate_traces::Traces;

use self::model::model;
use crate::{
    auth::Authenticator,
    batch::{Patience, queue::Budget},
    cache::{EmbeddingCache, file::WarmFile},
    embed::Embedder,
    http::{self, Gateway},
    model::{About, Model, ModelRegistry, ModelState, RegistryEntry},
    model_host::ModelHost,
    reload::ask::Reloads,
    shutdown::{Shutdown, Stage},
    usage::Usage,
};

/// Width of the mock's vectors.
pub(crate) const DIMENSIONS: usize = 8;

/// The settings that a test may change before the gateway starts.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) budget: Budget,
    pub(crate) tokens_per_second: f64,
    pub(crate) replicas: usize,
    /// Number of first attempts to load a lost backend again that fail.
    pub(crate) failing_reloads: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let auth = AuthConfig {
            mode: Some(AuthMode::None),
            ..AuthConfig::default()
        };
        Self {
            config: Config {
                auth,
                ..Config::default()
            },
            budget: Budget {
                max_batch_tokens: 64,
                max_batch_seconds: 10.0,
                aging_seconds: 10.0,
            },
            tokens_per_second: 1e6,
            replicas: 1,
            failing_reloads: 0,
        }
    }
}

/// The gateway with one model named `m`, which reads token ids as its own.
pub(crate) struct TestGateway {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) control: Control,
    pub(crate) n_reloads: Arc<AtomicUsize>,
    router: Router,
    _stage: tokio::sync::watch::Sender<Stage>,
}

impl TestGateway {
    /// Starts the gateway with the usual settings.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts the gateway with other settings.
    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let (_, control) = MockBackend::new(DIMENSIONS);
        let (stage, shutdown) = Shutdown::manual();
        let metrics = Metrics::new();
        let n_reloads = Arc::new(AtomicUsize::new(0));
        let model = model(&setup, &control, &n_reloads, &metrics);
        let config = setup.config;
        let of_model = Arc::new(model.config.clone());
        let state = ModelState::Loaded(Arc::new(model));
        let about = Arc::new(About::new("m", &of_model));
        let entries = vec![RegistryEntry { about, state }];
        let registry = ModelRegistry::new(entries, Some("m"), UnknownModel::Refuse);
        let file = WarmFile::open(&config.cache, &metrics);
        let cache = EmbeddingCache::new(&config.cache, file, &metrics);
        let plugins = Arc::new(Plugins::new(PluginContext {
            // Compiled once for all tests, and for the next run.
            state_folder: Some(
                Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins-of-tests"),
            ),
            max_body: config.server.max_body.bytes(),
            metrics: metrics.clone(),
            init_timeout: std::time::Duration::from_millis(300),
        }));
        if !config.plugins.is_empty() {
            // Needs a runtime of several threads.
            let load = || plugins.load(&config.plugins);
            let failed = tokio::task::block_in_place(load).failed;
            assert!(failed.is_empty(), "{failed:?}");
        }
        let traces = Arc::new(Traces::start(&config.telemetry, &metrics).unwrap());
        let gateway = Arc::new(Gateway {
            authenticator: Authenticator::new(&config.auth, Arc::clone(&plugins)),
            plugins,
            memory: Memory::new(config.server.max_bodies.bytes()),
            models: Arc::new(ModelHost::of(
                Embedder::new(registry, cache, config.server.max_inputs),
                &metrics,
            )),
            reloads: Reloads::channel().0,
            config: config.server,
            metrics,
            shutdown,
            started: 0,
            traces,
            slow: None,
            usage: Usage::new(None, std::time::Duration::ZERO),
        });
        Self {
            router: http::router(Arc::clone(&gateway)),
            gateway,
            control,
            n_reloads,
            _stage: stage,
        }
    }

    /// The model as it is served now.
    pub(crate) fn model(&self) -> Arc<Model> {
        let embedder = self.gateway.embedder().unwrap();
        Arc::clone(embedder.registry().resolve(Some("m")).unwrap())
    }

    /// The cache of all models.
    pub(crate) fn cache(&self) -> EmbeddingCache {
        self.gateway.embedder().unwrap().cache().clone()
    }
}

/// A deadline that no test reaches.
pub(crate) fn far() -> Instant {
    Instant::now() + std::time::Duration::from_secs(3600)
}

/// Waits as long as it must.
pub(crate) fn patient() -> Patience<'static> {
    static BEGUN: std::sync::LazyLock<embedgate_request::Begun> =
        std::sync::LazyLock::new(embedgate_request::Begun::already);
    Patience::until(far(), &BEGUN)
}
