//! The gateway in memory over a mock backend, for unit tests: the real router, pipeline, cache, queue and worker.

#[cfg(feature = "plugins")]
mod plugins;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{Router, body::Body, extract::Request};
use embedgate_config::{AuthConfig, AuthMode, Config, UnknownModel};
use embedgate_core::Backend;
use embedgate_metrics::Metrics;
use embedgate_mock::{Control, MockBackend};
use embedgate_plugin_host::{PluginSurroundings, Plugins};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    auth::Authenticator,
    batch::{BatcherConfig, Patience, Reload, cost::CostModel, queue::Budget},
    cache::{EmbeddingCache, file::WarmFile},
    embed::Embedder,
    http::{self, Gateway},
    memory::Memory,
    model::{About, Entry, Model, ModelRegistry, State, tokenizer::TextTokenizer},
    model_host::ModelHost,
    reload::Reloads,
    shutdown::{Shutdown, Stage},
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

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }
}

fn tokenizer() -> &'static TextTokenizer {
    static TOKENIZER: OnceLock<TextTokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bge-m3");
        TextTokenizer::load(&folder, 512, &embedgate_core::TokenizerSettings::default()).unwrap()
    })
}

impl TestGateway {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

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
        let state = State::Loaded(Arc::new(model));
        let about = Arc::new(About::new("m", &of_model));
        let entries = vec![Entry { about, state }];
        let registry = ModelRegistry::new(entries, Some("m"), UnknownModel::Refuse);
        let file = WarmFile::open(&config.cache, &metrics);
        let cache = EmbeddingCache::new(&config.cache, file, &metrics);
        let plugins = Arc::new(Plugins::new(PluginSurroundings {
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
        });
        Self {
            router: http::router(Arc::clone(&gateway)),
            gateway,
            control,
            n_reloads,
            _stage: stage,
        }
    }

    pub(crate) fn model(&self) -> Arc<Model> {
        let embedder = self.gateway.embedder().unwrap();
        Arc::clone(embedder.registry().resolve(Some("m")).unwrap())
    }

    pub(crate) fn cache(&self) -> EmbeddingCache {
        self.gateway.embedder().unwrap().cache().clone()
    }

    /// POSTs to `/v1/embeddings` with these headers.
    pub(crate) fn post(
        &self,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let mut request =
            Request::post("/v1/embeddings").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let router = self.router.clone();
        async move {
            let response = router.oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: serde_json::from_slice(&bytes).unwrap(),
            }
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests give a literal")]
    pub(crate) fn embed(&self, input: Value) -> impl Future<Output = Answer> + Send + use<> {
        self.post(&[], &json!({"model": "m", "input": input}))
    }

    /// Closes the backend's gate and waits until a batch of this one input waits there.
    pub(crate) async fn hold(&self, input: Value) -> tokio::task::JoinHandle<Answer> {
        self.control.close();
        let held = tokio::spawn(self.embed(input));
        self.batch_waits().await;
        held
    }

    pub(crate) async fn batch_waits(&self) {
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || control.wait_for_batch())
            .await
            .unwrap();
    }

    /// Waits until so many inputs wait or run.
    pub(crate) async fn in_flight(&self, n: usize) {
        self.until(|| self.model().batcher().in_flight() == n).await;
    }

    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }
}

fn model(
    setup: &Setup,
    control: &Control,
    n_reloads: &Arc<AtomicUsize>,
    metrics: &Metrics,
) -> Model {
    let backend = |control: &Control| -> Box<dyn Backend> {
        Box::new(MockBackend::steered_by(DIMENSIONS, control))
    };
    let (failing, reloads) = (setup.failing_reloads, Arc::clone(n_reloads));
    let again = Mutex::new(control.clone());
    let reload: Reload = Arc::new(move || {
        if reloads.fetch_add(1, Ordering::SeqCst) < failing {
            return Err("the mock was told not to come back".into());
        }
        Ok(Box::new(MockBackend::steered_by(
            DIMENSIONS,
            &again.lock().unwrap(),
        )))
    });
    let backends: Vec<_> = (0..setup.replicas).map(|_| backend(control)).collect();
    let layout = backends[0].info().layout;
    let mut config = setup.config.models.get("m").cloned().unwrap_or_default();
    let native = embedgate_request::TokenIds::Native;
    config.token_ids = config.token_ids.or(Some(native));
    let batching = BatcherConfig {
        capacity: config.queue_capacity,
        bulk_capacity: config.queue_capacity,
        max_queue_time: [config.max_queue_time.0, config.bulk_max_queue_time.0],
        budget: setup.budget,
        cost: CostModel::new(layout, [0.0, 1.0 / setup.tokens_per_second, 0.0]),
        tokens_per_second: setup.tokens_per_second,
    };
    Model::assemble(
        "m",
        config,
        backends,
        &reload,
        batching,
        tokenizer(),
        metrics,
    )
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
