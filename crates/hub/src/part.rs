//! A file in the making: its bytes, and a journal of the parts that are whole, so that a later run goes on.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use crate::{
    hash::{Check, hash_file, hex},
    listing::ListedFile,
};

/// Bytes of a part: what is fetched again at most where a connection's work is lost.
pub(crate) const PART: u64 = 16 << 20;

/// A file in the making.
pub(crate) struct Part {
    path: PathBuf,
    journal_path: PathBuf,
    size: u64,
    file: File,
    journal: Mutex<Journal>,
}

struct Journal {
    file: File,
    is_whole: Vec<bool>,
}

impl Part {
    /// Opens what an earlier run left of the file, or begins it.
    ///
    /// # Errors
    /// When a file cannot be made or read.
    pub(crate) fn open(folder: &Path, entry: &ListedFile) -> io::Result<Self> {
        let path = folder.join(format!("{}.part", name(entry)));
        let journal_path = path.with_extension("journal");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path)?;
        let mut journal = options.clone().append(true).open(&journal_path)?;
        let begins = format!("{} {PART}\n", entry.size);
        let mut text = String::new();
        // What is no text was no journal.
        let is_read = journal.read_to_string(&mut text).is_ok();
        let mut is_whole = vec![false; usize::try_from(entry.size.div_ceil(PART)).unwrap_or(0)];
        match text.strip_prefix(&begins) {
            Some(lines) if is_read && file.metadata()?.len() == entry.size => {
                // A line that was cut off by a crash has no end.
                for line in lines
                    .split_inclusive('\n')
                    .filter_map(|line| line.strip_suffix('\n'))
                {
                    let number = line
                        .parse()
                        .ok()
                        .and_then(|number: usize| is_whole.get_mut(number));
                    number.into_iter().for_each(|whole| *whole = true);
                }
            }
            _ => {
                journal.set_len(0)?;
                journal.write_all(begins.as_bytes())?;
                // Room is taken as bytes come; the length says what the file is to be.
                file.set_len(0)?;
                file.set_len(entry.size)?;
            }
        }
        if text.starts_with(&begins) {
            // The next line does not go on with a half one.
            let whole_lines = text.rfind('\n').map_or(0, |end| end + 1);
            journal.set_len(whole_lines as u64)?;
        }
        Ok(Self {
            path,
            journal_path,
            size: entry.size,
            file,
            journal: Mutex::new(Journal {
                file: journal,
                is_whole,
            }),
        })
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the parts that are not whole.
    pub(crate) fn missing(&self) -> Vec<usize> {
        let journal = self.journal();
        let numbers = journal.is_whole.iter().enumerate();
        numbers
            .filter(|(_, whole)| !**whole)
            .map(|(number, _)| number)
            .collect()
    }

    /// The first byte of a part, and the one behind its last.
    pub(crate) fn bounds(&self, number: usize) -> (u64, u64) {
        let start = number as u64 * PART;
        (start, (start + PART).min(self.size))
    }

    /// Bytes that are there.
    pub(crate) fn whole_bytes(&self) -> u64 {
        let missing = self.missing().into_iter().map(|number| {
            let (start, end) = self.bounds(number);
            end - start
        });
        self.size - missing.sum::<u64>()
    }

    /// Writes bytes to their place in the file.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Notes that a part is whole.
    pub(crate) fn note(&self, number: usize) -> io::Result<()> {
        let mut journal = self.journal();
        if !std::mem::replace(&mut journal.is_whole[number], true) {
            journal.file.write_all(format!("{number}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The sha256 of the whole file, and whether its check holds.
    pub(crate) fn hash(&self, check: &Check) -> io::Result<(String, bool)> {
        hash_file(&self.path, self.size, check)
    }

    /// Begins again from nothing.
    pub(crate) fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.journal_path)?;
        fs::remove_file(&self.path)
    }

    /// Puts the whole file where it belongs.
    pub(crate) fn publish(self, target: &Path) -> io::Result<()> {
        // Without it a power cut could leave the file with its length and nothing in it.
        self.file.sync_all()?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&self.path, target)?;
        fs::remove_file(&self.journal_path)
    }
}

/// The name of a file in the making, without its end: two files may have the same bytes.
pub(crate) fn name(entry: &ListedFile) -> String {
    let of_path = hex(&Sha256::digest(entry.path.as_bytes()));
    format!("{}-{}", entry.check.hex(), &of_path[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: u64) -> ListedFile {
        ListedFile {
            path: "a".into(),
            size,
            check: Check::Sha256("ab".into()),
        }
    }

    #[test]
    fn a_later_run_goes_on_with_whole_parts_and_believes_no_half_line() {
        let folder = tempfile::tempdir().unwrap();
        let size = 2 * PART + 5;
        let part = Part::open(folder.path(), &entry(size)).unwrap();
        assert_eq!(part.missing(), [0, 1, 2]);
        part.note(1).unwrap();
        part.note(1).unwrap();
        assert_eq!(part.bounds(2), (2 * PART, size));
        drop(part);
        // A crash in the middle of a line.
        let journal = folder
            .path()
            .join(format!("{}.journal", name(&entry(size))));
        let text = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("{text}2")).unwrap();
        let part = Part::open(folder.path(), &entry(size)).unwrap();
        assert_eq!(part.missing(), [0, 2]);
        assert_eq!(part.whole_bytes(), PART);
        // The half line does not become a number with the next.
        part.note(0).unwrap();
        drop(part);
        let part = Part::open(folder.path(), &entry(size)).unwrap();
        assert_eq!(part.missing(), [2]);
        drop(part);
        // Of a file of another size.
        let part = Part::open(folder.path(), &entry(size + 1)).unwrap();
        assert_eq!(part.missing(), [0, 1, 2]);
    }
}
