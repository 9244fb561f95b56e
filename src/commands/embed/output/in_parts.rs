//! An output in parts, which are kept until all are there.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    Embedded, persist,
    writer::{Form, Writer, ids_are_numbers},
};
use crate::{commands::embed::parts::Parts, whole_file};

/// A part is ended after so long, or so many rows: what a run that is killed loses.
const PART_TIME: Duration = Duration::from_secs(20);
const PART_ROWS: u64 = 1 << 16;

/// The parts, and the one that is being written.
pub(in crate::commands::embed) struct InParts {
    path: PathBuf,
    pub(super) parts: Parts,
    part: Option<(Writer, Instant)>,
    form: Form,
}

impl InParts {
    /// Goes on after the parts that are there.
    pub(super) fn after(path: PathBuf, parts: Parts, form: Form) -> Self {
        Self {
            path,
            parts,
            part: None,
            form,
        }
    }

    /// Takes the next rows, which reach to row `end` of the input.
    pub(super) fn write(&mut self, rows: Vec<Embedded>, end: u64) -> anyhow::Result<()> {
        // Rows that were left out belong to the next part.
        if rows.is_empty() && self.part.is_none() {
            return Ok(());
        }
        let parts = &mut self.parts;
        let (writer, begun) = match &mut self.part {
            Some(part) => part,
            None => {
                if parts.run.ids_are_numbers.is_none() {
                    parts.run.ids_are_numbers = ids_are_numbers(&rows);
                    parts.write_run()?;
                }
                let ids = parts.run.ids_are_numbers;
                let writer = Writer::new(&self.form, parts.begin()?, ids)?;
                self.part.insert((writer, Instant::now()))
            }
        };
        let is_full = begun.elapsed() >= PART_TIME || end - parts.next_row >= PART_ROWS;
        let mut written = writer.write(rows);
        if written.is_ok() && is_full {
            written = self.end_part(end);
        }
        if written.is_err() {
            // What is in it is not known: it is not kept.
            self.part = None;
        }
        written
    }

    /// Ends the part that was begun, if there is one.
    pub(super) fn end_part(&mut self, end: u64) -> anyhow::Result<()> {
        if let Some((writer, _)) = self.part.take() {
            writer.finish()?;
            self.parts.end(end)?;
        }
        Ok(())
    }

    /// Makes one file of all parts. `end` is the number of rows of the input.
    pub(super) fn finish(mut self, end: u64) -> anyhow::Result<()> {
        if self.part.is_none() && self.parts.is_empty() {
            // Of no rows there is a file all the same.
            let writer = Writer::new(&self.form, self.parts.begin()?, None)?;
            self.part = Some((writer, Instant::now()));
        }
        self.end_part(end)?;
        let path = &self.path;
        let file = whole_file::begin(whole_file::folder(path), whole_file::NEW)
            .with_context(|| path.display().to_string())?;
        self.parts.merge(file.reopen()?)?;
        persist(file, path)?;
        self.parts.remove()
    }
}
