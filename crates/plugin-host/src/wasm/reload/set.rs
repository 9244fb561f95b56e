//! The plugins of one moment.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_request::Hook;

use crate::wasm::plugin::Plugin;

/// The plugins of one moment, by hook, in the order they are asked.
#[derive(Default)]
pub(in crate::wasm) struct PluginSet {
    pub(in crate::wasm) all: BTreeMap<String, Arc<Plugin>>,
    pub(in crate::wasm) authenticators: Vec<Arc<Plugin>>,
    pub(in crate::wasm) preprocessors: Vec<Arc<Plugin>>,
}

impl PluginSet {
    /// Orders plugins by their hooks.
    pub(super) fn new(all: BTreeMap<String, Arc<Plugin>>) -> Self {
        let mut set = Self {
            all,
            ..Self::default()
        };
        set.authenticators = set.with(Hook::Authenticate);
        set.preprocessors = set.with(Hook::Preprocess);
        set
    }

    /// The plugins with a hook, in the order they are asked.
    pub(super) fn with(&self, hook: Hook) -> Vec<Arc<Plugin>> {
        let has = |plugin: &&Arc<Plugin>| plugin.guest.exports.hooks().any(|has| has == hook);
        let mut plugins: Vec<_> = self.all.values().filter(has).map(Arc::clone).collect();
        plugins.sort_by_key(|plugin| plugin.config.order);
        plugins
    }
}
