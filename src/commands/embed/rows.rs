//! Reads rows in chunks, and decides what becomes of bad ones.

use anyhow::bail;
use serde_json::Value;

use super::input::{Input, row::Row};

/// Bad rows that are logged one by one.
const MOST_SAID: u64 = 20;

/// Rows that were read together.
pub(super) struct Chunk {
    /// The number of each row, from 1, and its id.
    pub(super) ids: Vec<(u64, Option<Value>)>,
    pub(super) texts: Vec<String>,
    /// Rows of the input up to the last of them.
    pub(super) end: u64,
}

/// Reads rows, and leaves the bad ones out, or ends at the first.
pub(super) struct Reader<'a> {
    pub(super) input: &'a mut Input,
    pub(super) bad: Bad,
    /// The reason why no more rows are read.
    pub(super) failed: Option<anyhow::Error>,
    pub(super) ids_are_numbers: Option<bool>,
}

impl Reader<'_> {
    /// Passes rows that an earlier run did.
    pub(super) fn skip(&mut self, n_rows: u64) -> anyhow::Result<()> {
        while self.input.n_read() < n_rows {
            if self.input.next()?.is_none() {
                bail!("the input has fewer rows than the parts that are done");
            }
        }
        Ok(())
    }

    /// Ids of one file are of one kind, since a column is: that of the first.
    fn check_id(&mut self, id: Option<&Value>) -> Result<(), &'static str> {
        let Some(is_number) = id.map(Value::is_i64) else {
            return Ok(());
        };
        match *self.ids_are_numbers.get_or_insert(is_number) {
            true if !is_number => Err("has a text for an id, and the first row has a whole number"),
            false if is_number => Err("has a whole number for an id, and the first row has a text"),
            _ => Ok(()),
        }
    }

    /// The next rows; none at the end, and after a failure.
    pub(super) fn next(&mut self, most: usize) -> Option<Chunk> {
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        let mut end = self.input.n_read();
        while self.failed.is_none() && texts.len() < most {
            match self.input.next() {
                Ok(None) => break,
                Ok(Some(Ok(Row { id, text }))) => {
                    if let Err(problem) = self.check_id(id.as_ref()) {
                        if let Err(error) = self.bad.row(self.input.n_read(), problem) {
                            self.failed = Some(error);
                            break;
                        }
                        continue;
                    }
                    ids.push((self.input.n_read(), id));
                    texts.push(text);
                }
                Ok(Some(Err(problem))) => {
                    if let Err(error) = self.bad.row(self.input.n_read(), &problem) {
                        self.failed = Some(error);
                        break;
                    }
                }
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            end = self.input.n_read();
        }
        (!texts.is_empty()).then_some(Chunk { ids, texts, end })
    }
}

/// Rows that cannot be embedded.
pub(super) struct Bad {
    pub(super) skips: bool,
    pub(super) n_rows: u64,
}

impl Bad {
    /// Leaves a row out, or says that it ends the run.
    pub(super) fn row(&mut self, number: u64, problem: &str) -> anyhow::Result<()> {
        if !self.skips {
            bail!("row {number} {problem}: --on-error skip leaves such rows out");
        }
        self.n_rows += 1;
        if self.n_rows <= MOST_SAID {
            tracing::warn!("row {number} is left out: it {problem}");
        }
        Ok(())
    }

    /// Says how many were left out.
    pub(super) fn sum_up(&self) {
        if self.n_rows > 0 {
            tracing::warn!("{} rows were left out", self.n_rows);
        }
    }
}
