//! Lines as bytes, of a file or of standard input.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, bail};

/// Lines as bytes: one that is no text is not the end of all.
pub(super) struct Lines {
    pub(super) reader: Box<dyn BufRead>,
    pub(super) n_bytes: u64,
    pub(super) total: Option<u64>,
}

impl Lines {
    /// The next line without its end; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
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

/// Opens a file, or standard input.
pub(super) fn lines(path: &Path, is_stdin: bool) -> anyhow::Result<Lines> {
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
