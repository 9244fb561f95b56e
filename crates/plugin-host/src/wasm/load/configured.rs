//! A configuration compared with the component that it names.

use anyhow::{Context, bail};
use embedgate_config::PluginConfig;
use embedgate_request::Hook;

use crate::wasm::{files, inspect::Inspection};

/// Refuses a file that is not the one that the configuration names.
pub(super) fn check_pin(config: &PluginConfig, inspection: &Inspection) -> anyhow::Result<()> {
    let shown = config.path.display();
    if let Some(pinned) = &config.sha256
        && !pinned.eq_ignore_ascii_case(&inspection.sha256)
    {
        bail!(
            "{shown} has sha256 {}, and the configuration says {pinned}: if the change is meant, `embedgate plugin pin` writes the new one",
            inspection.sha256
        );
    }
    Ok(())
}

/// The hooks to call: those that the configuration names, or all.
pub(super) fn hooks(config: &PluginConfig, inspection: &Inspection) -> anyhow::Result<Vec<Hook>> {
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

/// The settings as JSON text, files included.
pub(super) fn settings(config: &PluginConfig) -> anyhow::Result<String> {
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

/// Lists the notes on the configuration: grants without an import, imports without a grant, and settings without use.
pub(super) fn notes(config: &PluginConfig, inspection: &Inspection) -> Vec<String> {
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
