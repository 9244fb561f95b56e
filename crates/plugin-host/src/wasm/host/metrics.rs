//! The metrics that guests count themselves.

use embedgate_metrics::PluginMetrics;
use wasmtime::Result;

use crate::wasm::{
    bindings::embedgate::plugin::metrics,
    shared::Shared,
    state::{GuestState, Phase},
};

impl GuestState {
    /// Returns the metrics that count a metric of the plugin's own; none in a warm-up, or where the metric is not
    /// granted.
    fn own_metrics(&mut self, name: &str) -> Result<Option<&PluginMetrics>> {
        self.outer_call("metrics")?;
        if self.phase == Phase::WarmUp {
            return Ok(None);
        }
        let Shared {
            metrics, grants, ..
        } = &*self.shared;
        if !grants.metrics.iter().any(|granted| granted == name) {
            metrics.custom_dropped.inc();
            return Ok(None);
        }
        Ok(Some(metrics))
    }
}

impl metrics::Host for GuestState {
    fn add(&mut self, name: String, labels: Vec<(String, String)>, delta: u64) -> Result<()> {
        if let Some(metrics) = self.own_metrics(&name)? {
            metrics.custom_add(&name, labels, delta);
        }
        Ok(())
    }

    fn observe(&mut self, name: String, labels: Vec<(String, String)>, value: f64) -> Result<()> {
        if let Some(metrics) = self.own_metrics(&name)? {
            metrics.custom_observe(&name, labels, value);
        }
        Ok(())
    }
}
