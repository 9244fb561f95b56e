//! Finished parts of a run, kept beside its output until all are there: a run that was ended goes on where it was.
//!
//! `OUTPUT.parts/` holds `run.json`, which says what is computed of what, and a file for each part, named by the rows of the
//! input that it covers. A part gets its name when it is whole.

pub(super) mod run;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use self::run::Run;
use crate::args::embed::FormatArg;

const RUN: &str = "run.json";

/// The parts of one run.
pub(super) struct Parts {
    folder: PathBuf,
    /// Held by one process at a time.
    _lock: File,
    format: FormatArg,
    pub(super) run: Run,
    /// The first row of the input that no part covers.
    pub(super) next_row: u64,
    whole: Vec<PathBuf>,
}

impl Parts {
    /// Takes up the parts beside an output, or begins.
    ///
    /// # Errors
    /// When they are of another run, and it is not to be given up.
    pub(super) fn open(
        output: &Path,
        format: FormatArg,
        run: &Run,
        force: bool,
    ) -> anyhow::Result<Self> {
        let mut folder = output.as_os_str().to_owned();
        folder.push(".parts");
        let folder = PathBuf::from(folder);
        let shown = folder.display();
        let is_foreign = folder.exists() && !folder.join(RUN).is_file();
        if is_foreign
            && folder
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_some())
        {
            bail!("{shown} is in the way: it holds something else than parts");
        }
        fs::create_dir_all(&folder).with_context(|| shown.to_string())?;
        // The folder itself is locked: what lies in it may be removed.
        let lock = File::open(&folder).with_context(|| shown.to_string())?;
        if lock.try_lock().is_err() {
            bail!("{shown} is being written by another process");
        }
        let kept: Option<Run> = match fs::read(folder.join(RUN)) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(_) => None,
        };
        let is_same = |kept: &Run| {
            let ids_are_numbers = kept.ids_are_numbers;
            *kept
                == Run {
                    ids_are_numbers,
                    ..run.clone()
                }
        };
        let mut parts = Self {
            format,
            run: run.clone(),
            next_row: 0,
            whole: Vec::new(),
            folder: folder.clone(),
            _lock: lock,
        };
        match kept {
            Some(kept) if is_same(&kept) => {
                parts.run = kept;
                parts.find().with_context(|| shown.to_string())?;
            }
            Some(_) if !force => bail!(
                "{shown} holds parts of another run (another input, model or option): --force gives them up, or choose another --output"
            ),
            _ => {
                for entry in folder.read_dir()? {
                    fs::remove_file(entry?.path()).with_context(|| shown.to_string())?;
                }
                parts.write_run()?;
            }
        }
        Ok(parts)
    }

    /// Keeps what is known of the run now.
    pub(super) fn write_run(&self) -> anyhow::Result<()> {
        let new = self.folder.join("run.new");
        fs::write(&new, serde_json::to_vec_pretty(&self.run)?)?;
        Ok(fs::rename(new, self.folder.join(RUN))?)
    }

    /// Finds the parts from the first row on without a gap, and removes what else lies there.
    fn find(&mut self) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for entry in self.folder.read_dir()? {
            let path = entry?.path();
            match range(&path) {
                Some((start, end)) => found.push((start, end, path)),
                None if path.ends_with(RUN) => {}
                None => fs::remove_file(path)?,
            }
        }
        found.sort();
        for (start, end, path) in found {
            if start == self.next_row {
                self.next_row = end;
                self.whole.push(path);
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Returns true when there is no whole part.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// Begins the next part.
    pub(super) fn begin(&self) -> anyhow::Result<File> {
        let path = self.folder.join("part.new");
        File::create(&path).with_context(|| path.display().to_string())
    }

    /// Gives the part that was begun its name: it covers the rows of the input up to `end`.
    pub(super) fn end(&mut self, end: u64) -> anyhow::Result<()> {
        let new = self.folder.join("part.new");
        File::open(&new)?.sync_all()?;
        let path = self.folder.join(format!("{:012}-{end:012}", self.next_row));
        fs::rename(&new, &path).with_context(|| path.display().to_string())?;
        self.next_row = end;
        self.whole.push(path);
        Ok(())
    }

    /// Writes all parts to one file.
    pub(super) fn merge(&self, output: File) -> anyhow::Result<()> {
        match self.format {
            FormatArg::Jsonl => {
                let mut output = output;
                for path in &self.whole {
                    io::copy(&mut File::open(path)?, &mut output)?;
                }
                Ok(output.sync_all()?)
            }
            #[cfg(feature = "tools")]
            FormatArg::Parquet => {
                let synced = output.try_clone()?;
                embedgate_tools::columns::merge(&self.whole, output)?;
                Ok(synced.sync_all()?)
            }
            _ => bail!("this format is written in one piece"),
        }
    }

    /// Removes the parts, whose rows are in the output.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// The rows that a part covers, by its name.
fn range(path: &Path) -> Option<(u64, u64)> {
    let (start, end) = path.file_name()?.to_str()?.split_once('-')?;
    Some((start.parse().ok()?, end.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn run() -> Run {
        Run {
            version: 1,
            input: "in.jsonl".into(),
            input_bytes: 100,
            input_modified: 5,
            model: "m".into(),
            fingerprint: "f".into(),
            settings: String::new(),
            dimensions: None,
            outputs: "[Dense]".into(),
            input_format: "Jsonl".into(),
            format: "Jsonl".into(),
            text: None,
            id: None,
            ids_are_numbers: None,
        }
    }

    fn open(output: &Path, run: &Run, force: bool) -> anyhow::Result<Parts> {
        Parts::open(output, FormatArg::Jsonl, run, force)
    }

    #[test]
    fn a_killed_run_goes_on_after_its_last_whole_part() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let mut parts = open(&output, &run(), false).unwrap();
        for (text, end) in [("one\n", 3), ("two\n", 5)] {
            parts.begin().unwrap().write_all(text.as_bytes()).unwrap();
            parts.end(end).unwrap();
        }
        // It is killed while it writes; and a part after a gap, which nothing leaves behind, is not believed.
        parts.begin().unwrap().write_all(b"hal").unwrap();
        fs::write(parts.folder.join("000000000009-000000000012"), "lost\n").unwrap();
        parts.run.ids_are_numbers = Some(true);
        parts.write_run().unwrap();
        drop(parts);

        let mut parts = open(&output, &run(), false).unwrap();
        assert_eq!((parts.next_row, parts.run.ids_are_numbers), (5, Some(true)));
        parts.begin().unwrap().write_all(b"three\n").unwrap();
        parts.end(8).unwrap();
        let merged = folder.path().join("merged");
        parts.merge(File::create(&merged).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(merged).unwrap(), "one\ntwo\nthree\n");
        parts.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn parts_of_another_run_are_given_up_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let mut parts = open(&output, &run(), false).unwrap();
        parts.begin().unwrap();
        parts.end(3).unwrap();
        let busy = open(&output, &run(), false).err().unwrap().to_string();
        assert!(busy.contains("another process"), "{busy}");
        drop(parts);
        let other = || Run {
            input_modified: 6,
            ..run()
        };
        let error = open(&output, &other(), false).err().unwrap().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(open(&output, &other(), true).unwrap().next_row, 0);
    }
}
