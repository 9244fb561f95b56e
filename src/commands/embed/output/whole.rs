//! An output in one piece: nothing is kept of a run that was ended.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::NamedTempFile;

use super::{
    Embedded, persist,
    writer::{Form, Writer, ids_are_numbers},
};
use crate::whole_file;

/// The file to become, and what is to become it.
pub(in crate::commands::embed) struct Whole {
    path: PathBuf,
    file: NamedTempFile,
    /// Begun with the first rows, which say what ids there are.
    writer: Option<Writer>,
    form: Form,
}

impl Whole {
    /// Begins a file beside the output.
    pub(super) fn begin(path: &Path, form: Form) -> anyhow::Result<Self> {
        let file = whole_file::begin(whole_file::folder(path), whole_file::NEW);
        Ok(Self {
            file: file.with_context(|| path.display().to_string())?,
            path: path.to_owned(),
            writer: None,
            form,
        })
    }

    /// Takes the next rows.
    pub(super) fn write(&mut self, rows: Vec<Embedded>) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let ids = ids_are_numbers(&rows);
                let writer = Writer::new(&self.form, self.file.reopen()?, ids)?;
                self.writer.insert(writer)
            }
        };
        writer.write(rows)
    }

    /// Completes the file, and gives it its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let writer = match self.writer {
            Some(writer) => writer,
            None => Writer::new(&self.form, self.file.reopen()?, None)?,
        };
        writer.finish()?;
        persist(self.file, &self.path)
    }
}
