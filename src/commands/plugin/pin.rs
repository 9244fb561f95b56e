//! `embedgate plugin pin`: writes the SHA-256 of plugins into the configuration, and leaves the rest of it as it is.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use embedgate_config::{Config, Environment};
use toml_edit::{DocumentMut, value};

use super::super::Failure;
use crate::whole_file;

pub(super) fn run(
    named: Option<&Path>,
    names: &[String],
    environment: &Environment,
) -> Result<(), Failure> {
    let file = Config::find(named, environment)?;
    Ok(pin(&file, names, environment)?)
}

fn pin(file: &Path, names: &[String], environment: &Environment) -> anyhow::Result<()> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?;
    let mut document: DocumentMut = text
        .parse()
        .with_context(|| format!("{shown} is not valid TOML"))?;
    let base = file.parent().unwrap_or(Path::new(""));
    let Some(plugins) = document
        .get_mut("plugins")
        .and_then(|plugins| plugins.as_table_like_mut())
    else {
        bail!("{shown} has no [plugins.NAME]");
    };
    for name in names {
        if !plugins.contains_key(name) {
            let known: Vec<_> = plugins.iter().map(|(name, _)| name.to_owned()).collect();
            bail!(
                "there is no plugin \"{name}\", choose from: {}",
                known.join(", ")
            );
        }
    }
    let mut lines = Vec::new();
    for (name, table) in plugins.iter_mut() {
        let name = name.get().to_owned();
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let table = table
            .as_table_like_mut()
            .with_context(|| format!("plugins.{name} is no table"))?;
        let path = table.get("path").and_then(|path| path.as_str());
        let path = path.with_context(|| format!("plugins.{name} has no path"))?;
        let path: PathBuf = base.join(environment.expand(path)?);
        let sha256 = embedgate_plugin_host::inspect(&path)
            .with_context(|| format!("plugins.{name}"))?
            .sha256;
        let before = table.get("sha256").and_then(|old| old.as_str());
        lines.push(match before {
            Some(old) if old.eq_ignore_ascii_case(&sha256) => format!("{name}: {sha256} as before"),
            Some(_) => format!("{name}: {sha256} (changed)"),
            None => format!("{name}: {sha256}"),
        });
        table.insert("sha256", value(sha256));
    }
    replace(file, &document.to_string())?;
    writeln!(io::stdout(), "{}", lines.join("\n")).context("standard output")
}

/// Writes the file anew, all or nothing, with the rights that it had.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let shown = file.display();
    // Behind a link lies the file that is meant.
    let file = file
        .canonicalize()
        .with_context(|| format!("{shown} cannot be found"))?;
    let before = fs::metadata(&file)?;
    let written = || -> io::Result<()> {
        // It may hold keys: nobody may read it who could not read the old one.
        let mut new = whole_file::begin(whole_file::folder(&file), before.mode() & 0o7777)?;
        new.write_all(text.as_bytes())?;
        fchown(new.as_file(), Some(before.uid()), Some(before.gid()))?;
        new.as_file().sync_all()?;
        new.persist(&file)?;
        Ok(())
    };
    written().with_context(|| format!("{shown} cannot be written: the folder may not be yours"))
}
