//! The source of texts: lines, JSON lines, or Parquet; with ids where there are some.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, bail};
#[cfg(feature = "tools")]
use embedgate_tools::columns::{RowId, TextRows};
use serde_json::Value;

use crate::args::{EmbedArgs, InputFormat};

/// One text, and what it is known by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// A string or a whole number.
    pub(super) id: Option<Value>,
    pub(super) text: String,
}

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

struct Members {
    text: String,
    id: Option<String>,
}

/// Lines as bytes: one that is no text is not the end of all.
struct Lines {
    reader: Box<dyn BufRead>,
    n_bytes: u64,
    total: Option<u64>,
}

impl Lines {
    /// The next line without its end; none at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let n = self.reader.read_until(b'\n', &mut line)?;
        self.n_bytes += n as u64;
        if n == 0 {
            return Ok(None);
        }
        for end in [b"\n", b"\r"] {
            if line.ends_with(end) {
                line.pop();
            }
        }
        Ok(Some(line))
    }
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

fn lines(path: &Path, is_stdin: bool) -> anyhow::Result<Lines> {
    if is_stdin {
        return Ok(Lines {
            reader: Box::new(BufReader::new(io::stdin())),
            n_bytes: 0,
            total: None,
        });
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let metadata = file
        .metadata()
        .with_context(|| path.display().to_string())?;
    if metadata.is_dir() {
        bail!("{} is a folder, expected a file", path.display());
    }
    let total = metadata.is_file().then_some(metadata.len());
    Ok(Lines {
        reader: Box::new(BufReader::with_capacity(1 << 16, file)),
        n_bytes: 0,
        total,
    })
}

fn of_line(line: Vec<u8>) -> Result<Row, String> {
    let text = String::from_utf8(line).map_err(|e| not_text(&e.utf8_error()))?;
    Ok(Row { id: None, text })
}

fn not_text(error: &std::str::Utf8Error) -> String {
    format!("is not UTF-8 at byte {}", error.valid_up_to())
}

fn of_json(line: &[u8], members: &Members) -> Result<Row, String> {
    let line = std::str::from_utf8(line).map_err(|e| not_text(&e))?;
    let mut object: serde_json::Map<String, Value> =
        serde_json::from_str(line).map_err(|e| format!("is no JSON object: {e}"))?;
    let text = match object.remove(&members.text) {
        Some(Value::String(text)) => text,
        Some(_) => return Err(format!("member \"{}\" is no string", members.text)),
        None => {
            let names: Vec<&str> = object.keys().take(10).map(String::as_str).collect();
            let names = names.join(", ");
            return Err(format!(
                "has no member \"{}\": there are {names}",
                members.text
            ));
        }
    };
    let id = match &members.id {
        None => None,
        Some(name) => match object.remove(name) {
            Some(id @ Value::String(_)) => Some(id),
            Some(id) if id.is_i64() => Some(id),
            Some(_) => {
                return Err(format!(
                    "member \"{name}\" is no string and no whole number"
                ));
            }
            None => return Err(format!("has no member \"{name}\"")),
        },
    };
    Ok(Row { id, text })
}
