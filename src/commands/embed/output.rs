//! Where vectors go: lines of JSON, Parquet, or `NumPy`'s npz.
//!
//! A file appears under its name when it is whole.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use embedgate_core::Outputs;
use embedgate_request::Embedding;
#[cfg(feature = "tools")]
use embedgate_tools::columns::{Npz, Parquet};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::args::{EmbedArgs, FormatArg};

/// Takes what was computed of texts, in their order.
pub(super) struct Output {
    writer: Writer,
    /// The file to become, and what is to become it.
    file: Option<(PathBuf, NamedTempFile)>,
}

enum Writer {
    Lines(Box<dyn Write>),
    #[cfg(feature = "tools")]
    Parquet(Box<Parquet>),
    #[cfg(feature = "tools")]
    Npz(Box<Npz>),
}

impl Output {
    /// Begins what the command line asks for.
    ///
    /// # Errors
    /// The file cannot be made; its form cannot go to standard output, or cannot be told.
    #[cfg_attr(
        not(feature = "tools"),
        expect(
            unused_variables,
            reason = "lines of JSON say themselves what they have"
        )
    )]
    pub(super) fn new(args: &EmbedArgs, outputs: Outputs) -> anyhow::Result<Self> {
        let Some(path) = &args.output else {
            return match args.format {
                None | Some(FormatArg::Jsonl) => Ok(Self {
                    writer: Writer::Lines(Box::new(BufWriter::new(io::stdout()))),
                    file: None,
                }),
                Some(_) => bail!("this format needs a file: say --output FILE"),
            };
        };
        let format = args.format.or_else(|| format_of(path)).with_context(|| {
            let path = path.display();
            format!("{path}: the format is not told by its ending: end it in .jsonl, .parquet or .npz, or say --format")
        })?;
        if path.exists() && !path.is_file() {
            bail!("{} is not a regular file", path.display());
        }
        let folder = folder(path);
        let file = temporary(&folder).with_context(|| path.display().to_string())?;
        let handle = file.reopen().with_context(|| path.display().to_string())?;
        let writer = match format {
            FormatArg::Jsonl => Writer::Lines(Box::new(BufWriter::new(handle))),
            #[cfg(feature = "tools")]
            FormatArg::Parquet => Writer::Parquet(Box::new(Parquet::new(handle, outputs)?)),
            #[cfg(feature = "tools")]
            FormatArg::Npz => Writer::Npz(Box::new(Npz::new(handle, &folder, outputs)?)),
            #[cfg(not(feature = "tools"))]
            FormatArg::Parquet | FormatArg::Npz => {
                bail!(
                    "this embedgate writes JSON lines alone: build it with the cargo feature tools"
                )
            }
        };
        Ok(Self {
            writer,
            file: Some((path.clone(), file)),
        })
    }

    /// Takes the results of the next texts.
    pub(super) fn write(&mut self, embeddings: Vec<Embedding>) -> anyhow::Result<()> {
        match &mut self.writer {
            Writer::Lines(out) => lines(out, embeddings),
            #[cfg(feature = "tools")]
            Writer::Parquet(file) => file.write(embeddings),
            #[cfg(feature = "tools")]
            Writer::Npz(file) => file.write(&embeddings),
        }
    }

    /// Completes the file, and gives it its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.writer {
            Writer::Lines(mut out) => out.flush().context("standard output")?,
            #[cfg(feature = "tools")]
            Writer::Parquet(file) => file.finish()?,
            #[cfg(feature = "tools")]
            Writer::Npz(file) => file.finish()?,
        }
        if let Some((path, file)) = self.file {
            file.as_file().sync_all()?;
            let named = file.persist(&path);
            named.with_context(|| path.display().to_string())?;
        }
        Ok(())
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

fn lines(out: &mut dyn Write, embeddings: Vec<Embedding>) -> anyhow::Result<()> {
    for embedding in embeddings {
        let (n_tokens, full) = (embedding.n_tokens, embedding.n_tokens_full);
        let sparse = embedding.sparse.as_ref().map(|sparse| Sparse {
            indices: &sparse.indices,
            values: &sparse.values,
        });
        let vectors = embedding.multi_vector.as_ref();
        let rows = vectors.map(|all| (0..all.rows()).map(|i| all.row(i)).collect());
        let line = Line {
            embedding: embedding.dense_numbers(),
            sparse_embedding: sparse,
            colbert_embedding: rows,
            tokens: n_tokens,
            truncated_from: (full > n_tokens).then_some(full),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush().context("the output")
}
