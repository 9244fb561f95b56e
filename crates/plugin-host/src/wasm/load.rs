//! From a configuration to a [`Guest`]: read, check, run `lifecycle.init`, take the snapshot, compile, link.

use std::{
    io::Read,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use embedgate_config::{InstanceConfig, KvConfig, PluginConfig};
use embedgate_metrics::PluginMetrics;
use embedgate_request::Hook;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::files;
use super::{
    aot::AotCache,
    bindings::{
        All,
        exports::embedgate::plugin::{authenticator, lifecycle, observer, preprocessor},
    },
    crypto::Issuers,
    engine::GuestEngine,
    guest::{Exports, Guest, Init, at_load},
    inspect::{Inspection, MOST_BYTES, NotAPlugin},
    kv::Store,
    outbound::Outbound,
    snapshot::{self, Snapshot},
    state::{Clock, Grants, Shared, State},
    wasi,
};

/// The surroundings that loading needs.
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
pub(super) struct Kept {
    pub(super) kv: Option<Arc<Store>>,
    pub(super) metrics: PluginMetrics,
}

/// A loaded plugin, and what its configuration should be told.
pub(super) struct Loaded {
    pub(super) guest: Guest,
    pub(super) inspection: Inspection,
    pub(super) notes: Vec<String>,
}

/// Reads a plugin's file, as far as it may be large.
pub(super) fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = files::open(path).with_context(|| format!("{shown} cannot be read"))?;
    let length = file.metadata()?.len();
    if length > MOST_BYTES {
        return Err(NotAPlugin::TooLarge(length)).with_context(|| shown.to_string());
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{shown} cannot be read"))?;
    Ok(bytes)
}

impl Loader {
    /// Loads a plugin. Blocks: for milliseconds where it was loaded before, for seconds where it is large and new.
    pub(super) fn load(
        &self,
        name: &str,
        config: &PluginConfig,
        kept: &Kept,
    ) -> anyhow::Result<Loaded> {
        let shown = config.path.display();
        let bytes = read(&config.path)?;
        let inspection = Inspection::of(&bytes).with_context(|| shown.to_string())?;
        if let Some(pinned) = &config.sha256
            && !pinned.eq_ignore_ascii_case(&inspection.sha256)
        {
            bail!(
                "{shown} has sha256 {}, and the configuration says {pinned}: if the change is meant, `embedgate plugin pin` writes the new one",
                inspection.sha256
            );
        }
        let hooks = hooks(config, &inspection)?;
        let notes = notes(config, &inspection);
        let settings = settings(config)?;
        if !inspection.has_lifecycle && settings != "{}" {
            bail!("{shown} takes no settings: it exports no lifecycle; take settings away");
        }
        let shared = Arc::new(self.shared(name, config, kept)?);
        let component = self.component(&bytes, &inspection, config, &settings, &shared);
        let (component, is_snapshot) = component.with_context(|| shown.to_string())?;
        component.initialize_copy_on_write_image()?;
        if !is_snapshot {
            let (shared, headers) = (&shared, &config.headers);
            snapshot::try_calls(self, &component, &settings, shared, headers, &inspection)
                .with_context(|| shown.to_string())?;
        }
        let pre = self.link(&inspection, &component)?;
        let exports = exports(&pre, &inspection, &hooks)?;
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

    fn shared(&self, name: &str, config: &PluginConfig, kept: &Kept) -> anyhow::Result<Shared> {
        let grants = &config.grants;
        Ok(Shared {
            name: name.into(),
            max_memory: config.max_memory.bytes(),
            max_texts: 2 * self.max_body,
            grants: Grants {
                secrets: grants.secrets.clone(),
                kv: kept.kv.clone(),
                metrics: grants.metrics.clone(),
                crypto: grants.crypto.as_ref().map(Issuers::load).transpose()?,
                http: grants.http.as_ref().map(Outbound::new).transpose()?,
            },
            clock: self.clock.clone(),
            scratch: Store::new(KvConfig::default()),
            metrics: kept.metrics.clone(),
        })
    }

    /// The compiled component, from the disk where it is there; and whether the state of `lifecycle.init` is in it.
    fn component(
        &self,
        bytes: &[u8],
        inspection: &Inspection,
        config: &PluginConfig,
        settings: &str,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<(Component, bool)> {
        let wants_snapshot = config.instance == InstanceConfig::Fresh;
        let name = self.aot_name(inspection, config, settings);
        if let Some(kept) = self.aot.as_ref().and_then(|aot| aot.get(&name))
            && let Some((is_snapshot, compiled)) = kept.split_first()
            && let Ok(component) = deserialize(&self.engine, compiled)
        {
            return Ok((component, *is_snapshot == 1));
        }
        let snapshot = if wants_snapshot {
            snapshot::take(self, bytes, settings, shared, &config.headers, inspection)?
        } else {
            Snapshot::Impossible
        };
        let (source, is_snapshot, may_keep) = match &snapshot {
            Snapshot::Taken { bytes, may_keep } => (bytes.as_slice(), true, *may_keep),
            Snapshot::Impossible => (bytes, false, true),
        };
        let component = self.compile(source)?;
        if let Some(aot) = self.aot.as_ref().filter(|_| may_keep) {
            let mut kept = vec![u8::from(is_snapshot)];
            kept.extend(component.serialize()?);
            if let Err(error) = aot.put(&name, &kept) {
                tracing::warn!(
                    "the compiled plugin {} cannot be kept: {error}",
                    shared.name
                );
            }
        }
        Ok((component, is_snapshot))
    }

    pub(super) fn compile(&self, bytes: &[u8]) -> anyhow::Result<Component> {
        let component = self
            .engine
            .compile(|| Component::from_binary(&self.engine.engine, bytes));
        component.map_err(|error| {
            let is_async = format!("{error:#}").contains("component model async");
            let hint = if is_async {
                "uses asynchronous calls of components, which plugins do not have: build it with --sync"
            } else {
                "cannot be compiled"
            };
            anyhow::Error::from(error).context(hint)
        })
    }

    /// Hashes everything that a compiled component depends on.
    fn aot_name(
        &self,
        inspection: &Inspection,
        config: &PluginConfig,
        settings: &str,
    ) -> blake3::Hash {
        use std::hash::{Hash, Hasher};
        struct Into<'a>(&'a mut blake3::Hasher);
        impl Hasher for Into<'_> {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(env!("CARGO_PKG_VERSION").as_bytes());
        field(inspection.sha256.as_bytes());
        // Without a snapshot, nothing of the settings is in the code.
        let in_snapshot = match config.instance {
            InstanceConfig::Fresh => settings,
            InstanceConfig::Reuse(_) => "",
        };
        field(in_snapshot.as_bytes());
        field(format!("{:?} {:?}", config.instance, config.headers).as_bytes());
        field(&config.max_memory.0.to_le_bytes());
        let engine = &self.engine.engine;
        engine
            .precompile_compatibility_hash()
            .hash(&mut Into(&mut hasher));
        hasher.finalize()
    }

    /// Resolves the component's imports.
    pub(super) fn link(
        &self,
        inspection: &Inspection,
        component: &Component,
    ) -> anyhow::Result<InstancePre<State>> {
        let mut linker = Linker::new(&self.engine.engine);
        All::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
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
        snapshot::block_on(async {
            let deadline = started + init_timeout;
            let _ticking = guest.engine.ticker.call();
            let made = guest.instantiate(super::state::Phase::Init, deadline);
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

#[expect(
    unsafe_code,
    reason = "wasmtime cannot check that the bytes are its own"
)]
fn deserialize(engine: &GuestEngine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes carry a hash under a key that only this user can read, made by `AotCache::put` over what
    // `Component::serialize` gave; wasmtime itself refuses those of another version or configuration.
    unsafe { Component::deserialize(&engine.engine, compiled) }
}

/// The hooks to call: those that the configuration names, or all.
fn hooks(config: &PluginConfig, inspection: &Inspection) -> anyhow::Result<Vec<Hook>> {
    let Some(named) = &config.hooks else {
        return Ok(inspection.hooks.clone());
    };
    for hook in named {
        if !inspection.hooks.contains(hook) {
            let has: Vec<_> = inspection.hooks.iter().map(|hook| hook.name()).collect();
            bail!(
                "{} has no hook {}: it has {}",
                config.path.display(),
                hook.name(),
                has.join(", ")
            );
        }
    }
    Ok(named.clone())
}

fn exports(
    pre: &InstancePre<State>,
    inspection: &Inspection,
    hooks: &[Hook],
) -> anyhow::Result<Exports> {
    let lifecycle = inspection.has_lifecycle;
    let has = |hook| hooks.contains(&hook);
    Ok(Exports {
        lifecycle: lifecycle
            .then(|| lifecycle::GuestIndices::new(pre))
            .transpose()?,
        authenticator: has(Hook::Authenticate)
            .then(|| authenticator::GuestIndices::new(pre))
            .transpose()?,
        preprocessor: has(Hook::Preprocess)
            .then(|| preprocessor::GuestIndices::new(pre))
            .transpose()?,
        observer: has(Hook::Observe)
            .then(|| observer::GuestIndices::new(pre))
            .transpose()?,
    })
}

/// Lists the notes on the configuration: grants without an import, imports without a grant, and settings without use.
fn notes(config: &PluginConfig, inspection: &Inspection) -> Vec<String> {
    let grants = &config.grants;
    let all = [
        ("secrets", !grants.secrets.is_empty()),
        ("kv", grants.kv.is_some()),
        ("metrics", !grants.metrics.is_empty()),
        ("crypto", grants.crypto.is_some()),
        ("http", grants.http.is_some()),
    ];
    let note = |(name, is_granted)| match (is_granted, inspection.imports_interface(name)) {
        (true, false) => Some(format!(
            "grants.{name} is not used: the plugin does not import it"
        )),
        (false, true) => {
            let then = match name {
                "secrets" => "it gets none",
                "metrics" => "its values are dropped",
                "http" => "its requests are denied",
                _ => "a call that uses it fails",
            };
            Some(format!(
                "the plugin imports {name}, which is not granted: {then}"
            ))
        }
        _ => None,
    };
    let mut notes: Vec<String> = all.into_iter().filter_map(note).collect();
    let is_asked_for = |hook: Hook| {
        let named = config.hooks.as_ref();
        named.is_none_or(|hooks| hooks.contains(&hook)) && inspection.hooks.contains(&hook)
    };
    if !config.models.is_empty() && !is_asked_for(Hook::Preprocess) {
        notes.push("models is not used: the plugin does not preprocess".into());
    }
    if !config.routes.is_empty() && !is_asked_for(Hook::Authenticate) {
        notes.push("routes is not used: the plugin does not authenticate".into());
    }
    notes
}

/// The settings as JSON text, files included.
fn settings(config: &PluginConfig) -> anyhow::Result<String> {
    let mut settings = serde_json::to_value(&config.settings).context("settings")?;
    if let Some(settings) = settings.as_object_mut() {
        for (name, path) in &config.settings_files {
            let text = files::read_to_string(path).with_context(|| {
                format!("settings_files.{name}: {} cannot be read", path.display())
            })?;
            settings.insert(name.clone(), text.into());
        }
    }
    Ok(settings.to_string())
}
