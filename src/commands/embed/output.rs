//! The output of vectors: lines of JSON, Parquet, or `NumPy`'s npz.
//!
//! A file appears under its name when it is whole.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use embedgate_core::Outputs;
use embedgate_request::Embedding;
#[cfg(feature = "tools")]
use embedgate_tools::columns::{IdKind, Npz, Parquet, RowId};
use serde::Serialize;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::parts::{Parts, Run};
use crate::args::{EmbedArgs, FormatArg};

/// The id of a row, if it has one, and its embedding.
pub(super) type Embedded = (Option<Value>, Embedding);

/// A part is ended after so long, or so many rows: what a run that is killed loses.
const PART_TIME: Duration = Duration::from_secs(20);
const PART_ROWS: u64 = 1 << 16;

/// Takes what was computed of texts, in their order.
pub(super) enum Output {
    Stdout(Writer),
    /// In one piece: the file to become, and what is to become it.
    File {
        path: PathBuf,
        file: NamedTempFile,
        /// Begun with the first rows, which say what ids there are.
        writer: Option<Writer>,
        outputs: Outputs,
        format: FormatArg,
    },
    /// In parts, which are kept until all are there.
    Parts {
        path: PathBuf,
        parts: Box<Parts>,
        part: Option<(Writer, Instant)>,
        outputs: Outputs,
        format: FormatArg,
    },
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
                None | Some(FormatArg::Jsonl) => Ok(Self::Stdout(Writer::Lines(Box::new(
                    BufWriter::new(io::stdout()),
                )))),
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
        let is_whole = format == FormatArg::Npz || !args.file.is_file();
        if !is_whole {
            let parts = Parts::open(path, format, &run(format)?, args.force)?;
            return Ok(Self::Parts {
                path: path.clone(),
                parts: Box::new(parts),
                part: None,
                outputs,
                format,
            });
        }
        let file = temporary(&folder(path)).with_context(|| shown.to_string())?;
        Ok(Self::File {
            path: path.clone(),
            file,
            writer: None,
            outputs,
            format,
        })
    }

    /// Rows of the input that were done by runs before.
    pub(super) fn n_done(&self) -> u64 {
        match self {
            Self::Parts { parts, .. } => parts.next_row,
            _ => 0,
        }
    }

    /// Returns true when the ids of runs before are numbers; none when that is not known.
    pub(super) fn ids_are_numbers(&self) -> Option<bool> {
        match self {
            Self::Parts { parts, .. } => parts.run.ids_are_numbers,
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
            Self::File {
                path,
                file,
                writer,
                outputs,
                format,
            } => {
                if rows.is_empty() {
                    return Ok(());
                }
                let writer = match writer {
                    Some(writer) => writer,
                    None => {
                        let ids = ids_are_numbers(&rows);
                        writer.insert(Writer::new(*format, file.reopen()?, path, *outputs, ids)?)
                    }
                };
                writer.write(rows)
            }
            Self::Parts {
                path,
                parts,
                part,
                outputs,
                format,
            } => {
                // Rows that were left out belong to the next part.
                if rows.is_empty() && part.is_none() {
                    return Ok(());
                }
                let (writer, begun) = match part {
                    Some(part) => part,
                    None => {
                        if parts.run.ids_are_numbers.is_none() {
                            parts.run.ids_are_numbers = ids_are_numbers(&rows);
                            parts.write_run()?;
                        }
                        let ids = parts.run.ids_are_numbers;
                        let writer = Writer::new(*format, parts.begin()?, path, *outputs, ids)?;
                        part.insert((writer, Instant::now()))
                    }
                };
                let is_full = begun.elapsed() >= PART_TIME || end - parts.next_row >= PART_ROWS;
                let mut written = writer.write(rows);
                if written.is_ok() && is_full {
                    written = end_part(parts, part, end);
                }
                if written.is_err() {
                    // What is in it is not known: it is not kept.
                    *part = None;
                }
                written
            }
        }
    }

    /// Completes what there is, so that the next run can go on after it.
    pub(super) fn keep(self, end: u64) -> anyhow::Result<()> {
        if let Self::Parts {
            mut parts,
            mut part,
            ..
        } = self
        {
            end_part(&mut parts, &mut part, end)?;
        }
        Ok(())
    }

    /// Completes the file, and gives it its name. `end` is the number of rows of the input.
    pub(super) fn finish(self, end: u64) -> anyhow::Result<()> {
        match self {
            Self::Stdout(writer) => writer.finish(),
            Self::File {
                path,
                file,
                writer,
                outputs,
                format,
            } => {
                let writer = match writer {
                    Some(writer) => writer,
                    None => Writer::new(format, file.reopen()?, &path, outputs, None)?,
                };
                writer.finish()?;
                persist(file, &path)
            }
            Self::Parts {
                path,
                mut parts,
                mut part,
                outputs,
                format,
            } => {
                if part.is_none() && parts.is_empty() {
                    // Of no rows there is a file all the same.
                    let writer = Writer::new(format, parts.begin()?, &path, outputs, None)?;
                    part = Some((writer, Instant::now()));
                }
                end_part(&mut parts, &mut part, end)?;
                let file = temporary(&folder(&path)).with_context(|| path.display().to_string())?;
                parts.merge(file.reopen()?)?;
                persist(file, &path)?;
                parts.remove()
            }
        }
    }
}

/// Returns true when ids are whole numbers, by the first row; none when it has no id.
fn ids_are_numbers(rows: &[Embedded]) -> Option<bool> {
    let (id, _) = rows.first()?;
    id.as_ref().map(Value::is_i64)
}

/// Ends the part that was begun, if there is one.
fn end_part(
    parts: &mut Parts,
    part: &mut Option<(Writer, Instant)>,
    end: u64,
) -> anyhow::Result<()> {
    if let Some((writer, _)) = part.take() {
        writer.finish()?;
        parts.end(end)?;
    }
    Ok(())
}

fn persist(file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    file.as_file().sync_all()?;
    let named = file.persist(path);
    named.with_context(|| path.display().to_string())?;
    Ok(())
}

/// Writes rows in a form.
pub(super) enum Writer {
    Lines(Box<dyn Write>),
    #[cfg(feature = "tools")]
    Parquet(Box<Parquet>),
    #[cfg(feature = "tools")]
    Npz(Box<Npz>),
}

impl Writer {
    /// `output` is what the file is for; `ids_are_numbers` is said where rows have ids.
    #[cfg_attr(
        not(feature = "tools"),
        expect(
            unused_variables,
            reason = "lines of JSON say themselves what they have"
        )
    )]
    fn new(
        format: FormatArg,
        file: File,
        output: &Path,
        outputs: Outputs,
        ids_are_numbers: Option<bool>,
    ) -> anyhow::Result<Self> {
        match format {
            FormatArg::Jsonl => Ok(Self::Lines(Box::new(BufWriter::new(file)))),
            #[cfg(feature = "tools")]
            FormatArg::Parquet => {
                let ids = ids_are_numbers.map(|are_numbers| match are_numbers {
                    true => IdKind::Number,
                    false => IdKind::Text,
                });
                Ok(Self::Parquet(Box::new(Parquet::new(file, outputs, ids)?)))
            }
            #[cfg(feature = "tools")]
            FormatArg::Npz => {
                let npz = Npz::new(file, &folder(output), outputs)?;
                Ok(Self::Npz(Box::new(npz)))
            }
            #[cfg(not(feature = "tools"))]
            FormatArg::Parquet | FormatArg::Npz => {
                bail!(
                    "this embedgate writes JSON lines alone: build it with the cargo feature tools"
                )
            }
        }
    }

    fn write(&mut self, rows: Vec<Embedded>) -> anyhow::Result<()> {
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
    fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Lines(out) => out.flush().context("the output"),
            #[cfg(feature = "tools")]
            Self::Parquet(_) | Self::Npz(_) => Ok(()),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(mut out) => out.flush().context("the output"),
            #[cfg(feature = "tools")]
            Self::Parquet(file) => file.finish(),
            #[cfg(feature = "tools")]
            Self::Npz(file) => file.finish(),
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

fn folder(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// A file that goes away unless it is given a name.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};
    let mut builder = tempfile::Builder::new();
    // As any new file: the process's mask takes from it.
    builder
        .prefix(".embedgate-")
        .permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// One text's results; each number with the digits that an f32 has.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse_embedding: Option<Sparse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colbert_embedding: Option<Vec<&'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_from: Option<usize>,
}

#[derive(Serialize)]
struct Sparse<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}

fn lines(out: &mut dyn Write, rows: Vec<Embedded>) -> anyhow::Result<()> {
    for (id, embedding) in rows {
        let (n_tokens, full) = (embedding.n_tokens, embedding.n_tokens_full);
        let sparse = embedding.sparse.as_ref().map(|sparse| Sparse {
            indices: &sparse.indices,
            values: &sparse.values,
        });
        let vectors = embedding.multi_vector.as_ref();
        let rows = vectors.map(|all| (0..all.rows()).map(|i| all.row(i)).collect());
        let line = Line {
            id,
            embedding: embedding.dense_numbers(),
            sparse_embedding: sparse,
            colbert_embedding: rows,
            tokens: n_tokens,
            truncated_from: (full > n_tokens).then_some(full),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
