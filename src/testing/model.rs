//! The model of the gateway in tests, over mock backends.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use embedgate_core::{Backend, TokenizerSettings};
use embedgate_metrics::Metrics;
use embedgate_mock::{Control, MockBackend};
use embedgate_request::TokenIds;

use super::{DIMENSIONS, Setup};
use crate::{
    batch::{BatcherConfig, Reload, cost::CostModel},
    model::{Model, ModelParts, tokenizer::TextTokenizer},
};

/// The model, with a backend for each replica.
pub(super) fn model(
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
    let native = TokenIds::Native;
    config.token_ids = config.token_ids.or(Some(native));
    let batching = BatcherConfig {
        capacity: config.queue_capacity,
        bulk_capacity: config.queue_capacity,
        max_queue_time: [config.max_queue_time.0, config.bulk_max_queue_time.0],
        budget: setup.budget,
        cost: CostModel::new(layout, [0.0, 1.0 / setup.tokens_per_second, 0.0]),
        tokens_per_second: setup.tokens_per_second,
    };
    let parts = ModelParts {
        config,
        backends,
        reload: &reload,
        batching,
        tokenizer: tokenizer(),
        metrics,
    };
    Model::assemble("m", parts)
}

fn tokenizer() -> &'static TextTokenizer {
    static TOKENIZER: OnceLock<TextTokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bge-m3");
        TextTokenizer::load(&folder, 512, &TokenizerSettings::default()).unwrap()
    })
}
