//! A compiled component: from the disk where it is there, else compiled now.

use std::hash::{Hash, Hasher};

use embedgate_config::InstanceConfig;
use wasmtime::component::Component;

use super::{
    Candidate, Loader,
    snapshot::{self, Snapshot},
};
use crate::wasm::engine::GuestEngine;

/// A compiled component.
pub(super) struct Compiled {
    pub(super) component: Component,
    /// True when the state of `lifecycle.init` is in it.
    pub(super) is_snapshot: bool,
}

impl Loader {
    /// Compiles a component, unless it is on the disk.
    pub(super) fn component(&self, candidate: &Candidate<'_>) -> anyhow::Result<Compiled> {
        let wants_snapshot = candidate.config.instance == InstanceConfig::Fresh;
        let name = self.aot_name(candidate);
        if let Some(kept) = self.aot.as_ref().and_then(|aot| aot.get(&name))
            && let Some((is_snapshot, compiled)) = kept.split_first()
            && let Ok(component) = deserialize(&self.engine, compiled)
        {
            let is_snapshot = *is_snapshot == 1;
            return Ok(Compiled {
                component,
                is_snapshot,
            });
        }
        let snapshot = if wants_snapshot {
            snapshot::take(self, candidate)?
        } else {
            Snapshot::Impossible
        };
        let (source, is_snapshot, may_keep) = match &snapshot {
            Snapshot::Taken { bytes, may_keep } => (bytes.as_slice(), true, *may_keep),
            Snapshot::Impossible => (candidate.bytes, false, true),
        };
        let component = self.compile(source)?;
        if let Some(aot) = self.aot.as_ref().filter(|_| may_keep) {
            let mut kept = vec![u8::from(is_snapshot)];
            kept.extend(component.serialize()?);
            if let Err(error) = aot.put(&name, &kept) {
                tracing::warn!(
                    "the compiled plugin {} cannot be kept: {error}",
                    candidate.shared.name
                );
            }
        }
        Ok(Compiled {
            component,
            is_snapshot,
        })
    }

    /// Compiles a component's bytes.
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
    fn aot_name(&self, candidate: &Candidate<'_>) -> blake3::Hash {
        struct Into<'a>(&'a mut blake3::Hasher);
        impl Hasher for Into<'_> {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let Candidate {
            inspection,
            config,
            settings,
            ..
        } = candidate;
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(env!("CARGO_PKG_VERSION").as_bytes());
        field(inspection.sha256.as_bytes());
        // Without a snapshot, nothing of the settings is in the code.
        let in_snapshot = match config.instance {
            InstanceConfig::Fresh => *settings,
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
