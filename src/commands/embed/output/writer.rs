//! Writes rows in the form that is asked for.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use embedgate_core::Outputs;
#[cfg(feature = "tools")]
use embedgate_tools::columns::{IdKind, Npz, Parquet, RowId};
use serde_json::Value;

use super::{Embedded, lines::lines};
use crate::args::embed::FormatArg;

/// The form of rows.
#[cfg_attr(
    not(feature = "tools"),
    expect(dead_code, reason = "lines of JSON say themselves what they have")
)]
pub(super) struct Form {
    pub(super) format: FormatArg,
    pub(super) outputs: Outputs,
    /// The output's folder, where a form may have files of its own.
    pub(super) folder: PathBuf,
}

/// Writes rows in a form.
pub(in crate::commands::embed) enum Writer {
    Lines(Box<dyn Write>),
    #[cfg(feature = "tools")]
    Parquet(Box<Parquet>),
    #[cfg(feature = "tools")]
    Npz(Box<Npz>),
}

impl Writer {
    /// Begins rows in a form; `ids_are_numbers` is said where rows have ids.
    #[cfg_attr(
        not(feature = "tools"),
        expect(
            unused_variables,
            reason = "lines of JSON say themselves what they have"
        )
    )]
    pub(super) fn new(
        form: &Form,
        file: File,
        ids_are_numbers: Option<bool>,
    ) -> anyhow::Result<Self> {
        match form.format {
            FormatArg::Jsonl => Ok(Self::Lines(Box::new(BufWriter::new(file)))),
            #[cfg(feature = "tools")]
            FormatArg::Parquet => {
                let ids = ids_are_numbers.map(|are_numbers| match are_numbers {
                    true => IdKind::Number,
                    false => IdKind::Text,
                });
                let parquet = Parquet::new(file, form.outputs, ids)?;
                Ok(Self::Parquet(Box::new(parquet)))
            }
            #[cfg(feature = "tools")]
            FormatArg::Npz => {
                let npz = Npz::new(file, &form.folder, form.outputs)?;
                Ok(Self::Npz(Box::new(npz)))
            }
            #[cfg(not(feature = "tools"))]
            FormatArg::Parquet | FormatArg::Npz => {
                anyhow::bail!(
                    "this embedgate writes JSON lines alone: build it with the cargo feature tools"
                )
            }
        }
    }

    /// Writes to standard output.
    pub(super) fn stdout() -> Self {
        Self::Lines(Box::new(BufWriter::new(io::stdout())))
    }

    /// Writes rows.
    pub(super) fn write(&mut self, rows: Vec<Embedded>) -> anyhow::Result<()> {
        match self {
            Self::Lines(out) => lines(out, rows),
            #[cfg(feature = "tools")]
            Self::Parquet(file) => {
                let rows = rows.into_iter().map(|(id, embedding)| {
                    let id = id.map(|id| match id {
                        Value::String(text) => RowId::Text(text),
                        id => id
                            .as_i64()
                            .map_or_else(|| RowId::Text(id.to_string()), RowId::Number),
                    });
                    (id, embedding)
                });
                file.write(rows)
            }
            #[cfg(feature = "tools")]
            Self::Npz(file) => {
                let embeddings: Vec<_> = rows.into_iter().map(|(_, embedding)| embedding).collect();
                file.write(&embeddings)
            }
        }
    }

    /// Shows what was written to who reads along.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Lines(out) => out.flush().context("the output"),
            #[cfg(feature = "tools")]
            Self::Parquet(_) | Self::Npz(_) => Ok(()),
        }
    }

    /// Completes the file.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(mut out) => out.flush().context("the output"),
            #[cfg(feature = "tools")]
            Self::Parquet(file) => file.finish(),
            #[cfg(feature = "tools")]
            Self::Npz(file) => file.finish(),
        }
    }
}

/// Returns true when ids are whole numbers, by the first row; none when it has no id.
pub(super) fn ids_are_numbers(rows: &[Embedded]) -> Option<bool> {
    let (id, _) = rows.first()?;
    id.as_ref().map(Value::is_i64)
}
