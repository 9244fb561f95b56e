//! The output of vectors: lines of JSON, Parquet, or `NumPy`'s npz.
//!
//! A file appears under its name when it is whole.

mod in_parts;
mod lines;
mod whole;
mod writer;

use std::path::Path;

use anyhow::{Context, bail};
use embedgate_core::Outputs;
use embedgate_request::Embedding;
use serde_json::Value;
use tempfile::NamedTempFile;

use self::{
    in_parts::InParts,
    whole::Whole,
    writer::{Form, Writer},
};
use super::parts::{Parts, run::Run};
use crate::{
    args::embed::{EmbedArgs, FormatArg},
    whole_file,
};

/// The id of a row, if it has one, and its embedding.
pub(super) type Embedded = (Option<Value>, Embedding);

/// Takes what was computed of texts, in their order.
pub(super) enum Output {
    Stdout(Writer),
    Whole(Whole),
    InParts(Box<InParts>),
}

impl Output {
    /// Begins what the command line asks for. `run` is what is computed, where it can be gone on with.
    ///
    /// # Errors
    /// The file is there already, or cannot be made; its form cannot go to standard output, or cannot be told.
    pub(super) fn new(
        args: &EmbedArgs,
        outputs: Outputs,
        run: impl FnOnce(FormatArg) -> anyhow::Result<Run>,
    ) -> anyhow::Result<Self> {
        let Some(path) = &args.output else {
            return match args.format {
                None | Some(FormatArg::Jsonl) => Ok(Self::Stdout(Writer::stdout())),
                Some(_) => bail!("this format needs a file: say --output FILE"),
            };
        };
        let shown = path.display();
        let format = args.format.or_else(|| format_of(path)).with_context(|| {
            format!("{shown}: the format is not told by its ending: end it in .jsonl, .parquet or .npz, or say --format")
        })?;
        if path.exists() && !path.is_file() {
            bail!("{shown} is not a regular file");
        }
        if path.exists() && !args.force {
            bail!("{shown} is there already: --force replaces it");
        }
        if format == FormatArg::Npz && args.id.is_some() {
            bail!("npz holds no ids: leave --id out, or write .parquet or .jsonl");
        }
        let form = Form {
            format,
            outputs,
            folder: whole_file::folder(path).to_owned(),
        };
        let is_whole = format == FormatArg::Npz || !args.file.is_file();
        if is_whole {
            return Ok(Self::Whole(Whole::begin(path, form)?));
        }
        let parts = Parts::open(path, format, &run(format)?, args.force)?;
        let in_parts = InParts::after(path.clone(), parts, form);
        Ok(Self::InParts(Box::new(in_parts)))
    }

    /// Rows of the input that were done by runs before.
    pub(super) fn n_done(&self) -> u64 {
        match self {
            Self::InParts(output) => output.parts.next_row,
            _ => 0,
        }
    }

    /// Returns true when the ids of runs before are numbers; none when that is not known.
    pub(super) fn ids_are_numbers(&self) -> Option<bool> {
        match self {
            Self::InParts(output) => output.parts.run.ids_are_numbers,
            _ => None,
        }
    }

    /// Takes the next rows, which reach to row `end` of the input.
    pub(super) fn write(&mut self, rows: Vec<Embedded>, end: u64) -> anyhow::Result<()> {
        match self {
            Self::Stdout(writer) => {
                writer.write(rows)?;
                writer.flush()
            }
            Self::Whole(output) => output.write(rows),
            Self::InParts(output) => output.write(rows, end),
        }
    }

    /// Completes what there is, so that the next run can go on after it.
    pub(super) fn keep(self, end: u64) -> anyhow::Result<()> {
        match self {
            Self::InParts(mut output) => output.end_part(end),
            _ => Ok(()),
        }
    }

    /// Completes the file, and gives it its name. `end` is the number of rows of the input.
    pub(super) fn finish(self, end: u64) -> anyhow::Result<()> {
        match self {
            Self::Stdout(writer) => writer.finish(),
            Self::Whole(output) => output.finish(),
            Self::InParts(output) => output.finish(end),
        }
    }
}

fn format_of(path: &Path) -> Option<FormatArg> {
    match path.extension()?.to_str()? {
        "jsonl" | "ndjson" => Some(FormatArg::Jsonl),
        "parquet" => Some(FormatArg::Parquet),
        "npz" => Some(FormatArg::Npz),
        _ => None,
    }
}

/// Gives a file that is whole its name.
fn persist(file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    file.as_file().sync_all()?;
    let named = file.persist(path);
    named.with_context(|| path.display().to_string())?;
    Ok(())
}
