//! The log of guests.

use wasmtime::Result;

use crate::wasm::{
    bindings::embedgate::plugin::log,
    line::printable,
    state::{GuestState, Phase},
};

impl log::Host for GuestState {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> Result<()> {
        self.host_call()?;
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if !self.may_log(message.len() + bytes) {
            self.shared.metrics.log_dropped.inc();
            return Ok(());
        }
        if !is_enabled(level) || self.phase == Phase::WarmUp {
            return Ok(());
        }
        let fields = fields
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        let line = printable(&format!("{message}{}", fields.collect::<String>()));
        let plugin = &*self.shared.name;
        let id = self.request_id.as_deref().unwrap_or_default();
        // One literal each: the level of a line is part of its place in the code.
        match level {
            log::Level::Trace => tracing::trace!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Debug => tracing::debug!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Info => tracing::info!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Warn => tracing::warn!(plugin, id, "plugin {plugin}: {line}"),
            log::Level::Error => tracing::error!(plugin, id, "plugin {plugin}: {line}"),
        }
        Ok(())
    }

    fn enabled(&mut self, level: log::Level) -> Result<bool> {
        self.host_call()?;
        Ok(is_enabled(level))
    }
}

fn is_enabled(level: log::Level) -> bool {
    match level {
        log::Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        log::Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        log::Level::Info => tracing::enabled!(tracing::Level::INFO),
        log::Level::Warn => tracing::enabled!(tracing::Level::WARN),
        log::Level::Error => tracing::enabled!(tracing::Level::ERROR),
    }
}
