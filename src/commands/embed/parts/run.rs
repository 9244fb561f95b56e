//! The settings of a run: what makes two runs the same.

use std::{path::PathBuf, time::UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    args::embed::{EmbedArgs, FormatArg},
    model::Model,
};

/// The settings of a run: its input, its model and its results. Parts of another run are of no use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::commands::embed) struct Run {
    pub(super) version: u32,
    pub(super) input: PathBuf,
    pub(super) input_bytes: u64,
    pub(super) input_modified: u128,
    pub(super) model: String,
    /// The identity of the model's vectors.
    pub(super) fingerprint: String,
    /// The settings of the model's configuration that change texts and vectors.
    pub(super) settings: String,
    pub(super) dimensions: Option<usize>,
    pub(super) outputs: String,
    pub(super) input_format: String,
    pub(super) format: String,
    pub(super) text: Option<String>,
    pub(super) id: Option<String>,
    /// True when ids are whole numbers; none when that is not known. It is known from the first row.
    pub(in crate::commands::embed) ids_are_numbers: Option<bool>,
}

impl Run {
    /// The run that the command line asks for.
    pub(in crate::commands::embed) fn of(
        args: &EmbedArgs,
        format: FormatArg,
        model: &Model,
    ) -> anyhow::Result<Self> {
        let input = args.file.canonicalize();
        let input = input.with_context(|| args.file.display().to_string())?;
        let metadata = input.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
        Ok(Self {
            version: 1,
            input_bytes: metadata.len(),
            input_modified: modified.map_or(0, |since| since.as_nanos()),
            input,
            model: model.name.clone(),
            fingerprint: model.fingerprint.to_hex().to_string(),
            settings: format!("{:?} {:?}", model.config, model.prompts.default),
            dimensions: args.dimensions,
            outputs: format!("{:?}", args.outputs),
            input_format: format!("{:?}", args.input_format()),
            format: format!("{format:?}"),
            text: args.text.clone(),
            id: args.id.clone(),
            ids_are_numbers: None,
        })
    }
}
