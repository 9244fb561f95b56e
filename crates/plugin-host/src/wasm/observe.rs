//! The hook that is told of finished requests, many at once and after their answers.

use std::{sync::Arc, time::Instant};

use embedgate_request::Hook;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    bindings::{embedgate::plugin::types, exports::embedgate::plugin::observer},
    exports::Exports,
    guest::CallBudget,
    instance::{LEAST_TRANSFER, Live},
    plugin::Plugin,
};
use crate::interface::Summary;

/// Summaries that wait for an observer; more are dropped and counted.
const MOST_WAITING: usize = 4096;
/// Summaries in one call.
const MOST_AT_ONCE: usize = 256;

/// The way to an observer. When the last is dropped, the observer's task ends once it has told what waits.
#[derive(Clone)]
pub(super) struct Observer {
    queue: mpsc::Sender<Arc<Summary>>,
}

impl Observer {
    /// Starts the task that tells the plugin.
    pub(super) fn start(plugin: Arc<Plugin>) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let task = tokio::spawn(tell(plugin, waiting));
        (Self { queue }, task)
    }

    /// Queues a summary. `false`: there are too many.
    pub(super) fn send(&self, summary: Arc<Summary>) -> bool {
        self.queue.try_send(summary).is_ok()
    }
}

async fn tell(plugin: Arc<Plugin>, mut waiting: mpsc::Receiver<Arc<Summary>>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MOST_AT_ONCE).await > 0 {
        let lent: Vec<_> = batch.iter().map(|summary| lend(summary)).collect();
        let guest = &plugin.guest;
        let call = async |exports: &Exports, live: &mut Live| {
            let indices = exports.observer.as_ref();
            let indices = indices.expect("only plugins that observe are told");
            let hook = indices.load(&mut live.store, &live.instance)?;
            hook.call_observe(&mut live.store, &lent).await
        };
        let id: Arc<str> = Arc::clone(&batch[0].id);
        let deadline = Instant::now() + guest.timeout;
        let budget = CallBudget {
            hook: Hook::Observe,
            request_id: &id,
            deadline,
            max_transfer: LEAST_TRANSFER,
        };
        let (result, _) = guest.call(&budget, call).await;
        if let Err(failure) = result {
            guest
                .shared
                .metrics
                .summaries_dropped
                .inc_by(batch.len() as u64);
            plugin.say_failure(Hook::Observe, &id, &failure);
        }
        batch.clear();
    }
}

fn lend(summary: &Summary) -> observer::Summary<'_> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    types::Summary {
        id: &summary.id,
        path: &summary.path,
        status: summary.status,
        subject: summary.subject.as_deref(),
        tenant: summary.tenant.as_deref(),
        model: &summary.model,
        inputs: count(summary.n_inputs),
        tokens: summary.n_tokens as u64,
        cache_hits: count(summary.n_cached),
        total_us: summary.total_us,
        error_code: summary.error_code.as_deref(),
    }
}
