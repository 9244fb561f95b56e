//! The source of texts: lines, JSON lines, or Parquet; with ids where there are some.

mod lines;
pub(super) mod row;

use anyhow::bail;
#[cfg(feature = "tools")]
use embedgate_tools::columns::{RowId, TextRows};

use self::{
    lines::{Lines, lines},
    row::{Members, Row, of_json, of_line},
};
use crate::args::embed::{EmbedArgs, InputFormat};

/// Texts, one after another.
pub(super) struct Input {
    source: Source,
    /// Rows that were read, good or bad.
    n_read: u64,
}

enum Source {
    Lines {
        lines: Lines,
        /// Names of the members of a JSON object; none: a line is a text.
        members: Option<Members>,
    },
    #[cfg(feature = "tools")]
    Parquet(Box<TextRows>),
}

impl Input {
    /// Opens what the command line names.
    ///
    /// # Errors
    /// When it cannot be read, or not as that.
    pub(super) fn open(args: &EmbedArgs) -> anyhow::Result<Self> {
        let is_stdin = args.file.as_os_str() == "-";
        let format = args.input_format();
        if format == InputFormat::Lines && (args.text.is_some() || args.id.is_some()) {
            bail!(
                "lines of text have no members: say --input-format jsonl or parquet, or leave --text and --id out"
            );
        }
        let text = args.text.clone().unwrap_or_else(|| "text".into());
        let id = args.id.clone();
        let source = match format {
            InputFormat::Parquet if is_stdin => {
                bail!("Parquet is read from a file: name it, since its end is read first")
            }
            #[cfg(feature = "tools")]
            InputFormat::Parquet => {
                let rows = TextRows::open(&args.file, &text, id.as_deref())?;
                Source::Parquet(Box::new(rows))
            }
            #[cfg(not(feature = "tools"))]
            InputFormat::Parquet => {
                bail!("this embedgate reads lines alone: build it with the cargo feature tools")
            }
            InputFormat::Lines | InputFormat::Jsonl => Source::Lines {
                lines: lines(&args.file, is_stdin)?,
                members: (format == InputFormat::Jsonl).then_some(Members { text, id }),
            },
        };
        Ok(Self { source, n_read: 0 })
    }

    /// The next row, or what is wrong with it; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Result<Row, String>>> {
        let row = match &mut self.source {
            Source::Lines { lines, members } => loop {
                let Some(line) = lines.next()? else {
                    return Ok(None);
                };
                match members {
                    // An empty line is no JSON, and no row: files end in one.
                    Some(_) if line.trim_ascii().is_empty() => {}
                    Some(members) => break of_json(&line, members),
                    None => break of_line(line),
                }
            },
            #[cfg(feature = "tools")]
            Source::Parquet(rows) => match rows.next_row()? {
                None => return Ok(None),
                Some(row) => row
                    .map(|(id, text)| Row {
                        id: id.map(|id| match id {
                            RowId::Number(n) => n.into(),
                            RowId::Text(text) => text.into(),
                        }),
                        text,
                    })
                    .map_err(|error| format!("{error:#}")),
            },
        };
        self.n_read += 1;
        Ok(Some(row))
    }

    /// Rows that were read.
    pub(super) fn n_read(&self) -> u64 {
        self.n_read
    }

    /// Returns true when lines are taken as they are, and the first one looks like an object of JSON.
    pub(super) fn looks_like_json(&mut self) -> bool {
        match &mut self.source {
            Source::Lines {
                lines,
                members: None,
            } => lines
                .reader
                .fill_buf()
                .is_ok_and(|text| text.starts_with(b"{\"")),
            _ => false,
        }
    }

    /// Returns the part that was read and the whole, in bytes or rows; none when the whole is not known.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        match &self.source {
            Source::Lines { lines, .. } => Some((lines.n_bytes, lines.total?)),
            #[cfg(feature = "tools")]
            Source::Parquet(rows) => Some((self.n_read, rows.n_rows())),
        }
    }
}
