//! From a configuration to a [`Guest`]: read, check, run `lifecycle.init`, take the snapshot, compile, link.

mod compiled;
mod configured;
mod first;
mod snapshot;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use embedgate_config::{InstanceConfig, KvConfig, PluginConfig};
use embedgate_metrics::PluginMetrics;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use self::{
    compiled::Compiled,
    configured::{check_pin, hooks, notes, settings},
    first::{block_on, try_calls},
};
use super::{
    aot::AotCache,
    bindings::All,
    clock::Clock,
    crypto::Issuers,
    engine::GuestEngine,
    exports::Exports,
    failure::at_load,
    files,
    guest::{Guest, Init},
    inspect::Inspection,
    kv::Store,
    outbound::Outbound,
    shared::{Grants, Shared},
    state::{GuestState, Phase},
    wasi,
};

/// The context that loading a plugin needs.
pub(super) struct Loader {
    pub(super) engine: Arc<GuestEngine>,
    pub(super) aot: Option<AotCache>,
    /// Largest body of a request: a plugin's edits may be twice as large.
    pub(super) max_body: usize,
    pub(super) clock: Clock,
    /// `lifecycle.init` and the warm-up call end after this time.
    pub(super) init_timeout: Duration,
}

/// A plugin's parts that outlive its versions.
#[derive(Clone)]
pub(super) struct PluginResources {
    pub(super) kv: Option<Arc<Store>>,
    pub(super) metrics: PluginMetrics,
}

/// A loaded plugin, and what its configuration should be told.
pub(super) struct Loaded {
    pub(super) guest: Guest,
    pub(super) inspection: Inspection,
    pub(super) notes: Vec<String>,
}

/// A plugin that is being loaded: its file, and what it is configured to be.
struct Candidate<'a> {
    bytes: &'a [u8],
    inspection: &'a Inspection,
    config: &'a PluginConfig,
    /// As JSON.
    settings: &'a str,
    shared: &'a Arc<Shared>,
}

impl Loader {
    /// Loads a plugin. Blocks: for milliseconds where it was loaded before, for seconds where it is large and new.
    pub(super) fn load(
        &self,
        name: &str,
        config: &PluginConfig,
        resources: &PluginResources,
    ) -> anyhow::Result<Loaded> {
        let shown = config.path.display();
        let bytes = files::read_component(&config.path)?;
        let inspection = Inspection::of(&bytes).with_context(|| shown.to_string())?;
        check_pin(config, &inspection)?;
        let hooks = hooks(config, &inspection)?;
        let notes = notes(config, &inspection);
        let settings = settings(config)?;
        if !inspection.has_lifecycle && settings != "{}" {
            bail!("{shown} takes no settings: it exports no lifecycle; take settings away");
        }
        let shared = Arc::new(self.shared(name, config, resources)?);
        let candidate = Candidate {
            bytes: &bytes,
            inspection: &inspection,
            config,
            settings: &settings,
            shared: &shared,
        };
        let compiled = self.component(&candidate);
        let Compiled {
            component,
            is_snapshot,
        } = compiled.with_context(|| shown.to_string())?;
        component.initialize_copy_on_write_image()?;
        if !is_snapshot {
            try_calls(self, &candidate, &component).with_context(|| shown.to_string())?;
        }
        let pre = self.link(&inspection, &component)?;
        let exports = Exports::of(&pre, &inspection, &hooks)?;
        let init = if is_snapshot || exports.lifecycle.is_none() {
            Init::Done
        } else {
            Init::EachInstance(settings)
        };
        let guest = Guest {
            shared,
            engine: Arc::clone(&self.engine),
            pre,
            exports,
            init,
            timeout: config.timeout.0,
            lifetime: config.instance,
            n_instances: config.max_instances,
            places: Arc::new(Semaphore::new(config.max_instances)),
            idle: Mutex::default(),
        };
        let mut loaded = Loaded {
            guest,
            inspection,
            notes,
        };
        if let Init::EachInstance(_) = loaded.guest.init {
            loaded.check_settings(config, self.init_timeout)?;
        }
        Ok(loaded)
    }

    fn shared(
        &self,
        name: &str,
        config: &PluginConfig,
        resources: &PluginResources,
    ) -> anyhow::Result<Shared> {
        let grants = &config.grants;
        Ok(Shared {
            name: name.into(),
            max_memory: config.max_memory.bytes(),
            max_texts: 2 * self.max_body,
            grants: Grants {
                secrets: grants.secrets.clone(),
                kv: resources.kv.clone(),
                metrics: grants.metrics.clone(),
                crypto: grants.crypto.as_ref().map(Issuers::load).transpose()?,
                http: grants.http.as_ref().map(Outbound::new).transpose()?,
            },
            clock: self.clock.clone(),
            scratch: Store::new(KvConfig::default()),
            metrics: resources.metrics.clone(),
        })
    }

    /// Resolves the component's imports.
    fn link(
        &self,
        inspection: &Inspection,
        component: &Component,
    ) -> anyhow::Result<InstancePre<GuestState>> {
        let mut linker = Linker::new(&self.engine.engine);
        All::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
        if inspection.wasi_imports().next().is_some() {
            wasi::add_to_linker(&mut linker, component)?;
        }
        Ok(linker.instantiate_pre(component)?)
    }
}

impl Loaded {
    /// Runs `lifecycle.init` once, so that what it has against its settings is said now and not to a client.
    fn check_settings(
        &mut self,
        config: &PluginConfig,
        init_timeout: Duration,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let guest = &self.guest;
        block_on(async {
            let deadline = started + init_timeout;
            let _ticking = guest.engine.ticker.call();
            let made = guest.instantiate(Phase::Init, deadline);
            let made = tokio::time::timeout_at(deadline.into(), made).await;
            let made =
                made.with_context(|| format!("lifecycle.init takes longer than {init_timeout:?}"))?;
            let live = made.map_err(|(error, state)| at_load(error, &state, init_timeout))?;
            // The first of the instances that are used again.
            guest.put_back(live);
            Ok::<_, anyhow::Error>(())
        })?;
        if config.instance == InstanceConfig::Fresh {
            let took = started.elapsed();
            self.notes.push(format!(
                "its state after lifecycle.init cannot be kept, so init runs in every call and takes {took:.1?}: set instance = {{ reuse = 1000 }}"
            ));
        }
        Ok(())
    }
}
