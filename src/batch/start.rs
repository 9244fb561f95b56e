//! Starts the queue of one model: its task, and a worker for each replica.

use std::{sync::Arc, time::Instant};

use embedgate_core::Backend;
use embedgate_metrics::ModelMetrics;
use embedgate_request::Lane;
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Batcher, BatcherConfig,
    dispatch::Dispatcher,
    load::QueueLoad,
    queue::BatchQueue,
    replica::{Health, Reload, Replica},
};

impl Batcher {
    /// Starts the task and a worker thread for each backend. Must be called within a tokio runtime.
    ///
    /// Beside each backend is what makes one like it when it is lost.
    #[must_use]
    pub(crate) fn start(
        name: &str,
        backends: Vec<(Box<dyn Backend>, Reload)>,
        config: BatcherConfig,
        metrics: &ModelMetrics,
    ) -> Self {
        let name: Arc<str> = name.into();
        let can_pause = backends.iter().all(|(backend, _)| backend.can_pause());
        let mut queue = BatchQueue::new(config.budget, config.cost);
        if can_pause {
            queue = queue.with_pauses();
        }
        let load = QueueLoad::new(
            config.capacity,
            config.bulk_capacity,
            config.tokens_per_second * backends.len() as f64,
        );
        let [query, bulk] = config.max_queue_time;
        let load = Arc::new(load.with_max_queue_time(|lane| match lane {
            Lane::Query => query,
            Lane::Bulk => bulk,
        }));
        load.set_most_beside(queue.most_beside());
        let health = Health::new(backends.len());
        metrics.ready.set(1);
        let (entries, incoming) = mpsc::channel(config.capacity);
        let left = Arc::new(Notify::new());
        // A worker's request, one made beside a long batch that has ended since, and that of the worker that takes
        // its place when it is lost: nobody reads them while the queue is empty.
        let (work_requests_tx, work_requests) = mpsc::channel(3 * backends.len().max(1));
        let dispatcher = Dispatcher {
            name: Arc::clone(&name),
            queue,
            load: Arc::clone(&load),
            health: health.clone(),
            left: Arc::clone(&left),
            metrics: metrics.clone(),
            started: Instant::now(),
            resting: Vec::new(),
        };
        let (lease, running) = watch::channel(());
        let lease = Arc::new(lease);
        let mut tasks = vec![tokio::spawn(dispatcher.run(incoming, work_requests))];
        for (backend, reload) in backends {
            let replica = Replica {
                name: Arc::clone(&name),
                reload,
                health: health.clone(),
                metrics: metrics.clone(),
                work_requests: work_requests_tx.clone(),
            };
            let lease = Arc::clone(&lease);
            tasks.push(tokio::spawn(async move {
                replica.keep_working(backend).await;
                drop(lease);
            }));
        }
        Self {
            name,
            entries,
            load,
            health,
            left,
            tasks,
            running,
        }
    }
}
