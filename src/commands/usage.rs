//! `embedgate usage`: what each caller used, as CSV or JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, Environment};
use serde::Serialize;

use super::{Failure, say};
use crate::{
    app::usage_folder,
    args::usage::{UsageArgs, UsageFormat},
    usage::record::{self, Counts, Key},
};

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    day: String,
    caller: &'a str,
    model: &'a str,
    #[serde(flatten)]
    counts: Counts,
}

pub(super) fn run(
    file: Option<&Path>,
    args: &UsageArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    // Models need not be there for it.
    let config = Config::load_without_models(file, environment)?;
    let folder = usage_folder(&config, environment).ok_or_else(|| {
        anyhow!("usage is not kept: usage.enabled is false, or there is no server.state_dir")
    })?;
    let read =
        record::read(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    if !folder.exists() {
        let words = format!(
            "embedgate: nothing was counted in {} yet; a service of systemd has its own folder: set server.state_dir\n",
            folder.display()
        );
        // An error means that nobody reads.
        drop(io::stderr().write_all(words.as_bytes()));
    }
    for damaged in &read.damaged {
        let words = format!("embedgate: {} is damaged and left out\n", damaged.display());
        // An error means that nobody reads.
        drop(io::stderr().write_all(words.as_bytes()));
    }
    let is_asked = |key: &Key| {
        let is_from = args.from.is_none_or(|from| key.day >= from);
        let is_to = args.to.is_none_or(|to| key.day <= to);
        let is_caller = args.caller.as_ref().is_none_or(|name| *name == key.caller);
        is_from && is_to && is_caller
    };
    let rows = read.rows.into_iter().filter(|(key, _)| is_asked(key));
    let text = match args.format {
        UsageFormat::Csv => csv(rows),
        UsageFormat::Json => json(rows)?,
    };
    Ok(say(&text)?)
}

fn csv(rows: impl Iterator<Item = (Key, Counts)>) -> String {
    let mut text =
        String::from("day,caller,model,requests,refused,inputs,cached,tokens,truncated\n");
    for (key, counts) in rows {
        let (caller, model) = (quoted(&key.caller), quoted(&key.model));
        let Counts {
            requests,
            refused,
            inputs,
            cached,
            tokens,
            truncated,
        } = counts;
        let day = key.day;
        text += &format!(
            "{day},{caller},{model},{requests},{refused},{inputs},{cached},{tokens},{truncated}\n"
        );
    }
    text
}

/// A field of CSV. One that a spreadsheet would run as a formula begins with an apostrophe.
///
/// Source: RFC 4180; OWASP, "CSV Injection".
fn quoted(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let safe = match is_formula {
        true => format!("'{field}"),
        false => field.to_owned(),
    };
    match safe.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

fn json(rows: impl Iterator<Item = (Key, Counts)>) -> anyhow::Result<String> {
    let rows: BTreeMap<Key, Counts> = rows.collect();
    let line = |(key, counts): (&'_ Key, &Counts)| {
        serde_json::to_string(&Line {
            day: key.day.to_string(),
            caller: &key.caller,
            model: &key.model,
            counts: *counts,
        })
    };
    let lines: Result<Vec<String>, _> = rows.iter().map(line).collect();
    Ok(format!("[{}]\n", lines?.join(",\n ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_csv_are_quoted_and_run_nothing() {
        for (field, expected) in [
            ("ragflow", "ragflow"),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            ("=1+1", "'=1+1"),
            ("", ""),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
