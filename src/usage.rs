//! The usage of each caller, by day and model, kept over restarts.
//!
//! Each process counts into files of its own, one a day, which it writes anew every few seconds: two processes that share a folder,
//! such as the old one and the new one of a restart, do not meet. A process that is killed loses what it counted since.

pub(crate) mod record;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use uuid::Uuid;

use self::record::{Counts, Day, Record, Row};
use crate::whole_file;

/// Counts are written so often.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// So many callers, and so many models of a caller, are counted by name on one day.
const MOST_NAMES: usize = 1000;
/// The name of those beyond.
const OTHERS: &str = "other";

/// The usage that this process counts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Usage(Arc<Inner>);

struct Inner {
    /// None where nothing is kept.
    folder: Option<PathBuf>,
    /// Older files are removed.
    keep: Duration,
    days: Mutex<BTreeMap<Day, Counted>>,
    /// Held while files are written: an older count must not come after a newer one.
    writing: Mutex<()>,
}

/// The counts of one day.
struct Counted {
    /// Tells the file from those of other processes, and from those that were written and let go before.
    file: Uuid,
    callers: HashMap<Arc<str>, HashMap<String, Counts>>,
    /// Changes so far, and those that are written.
    n_changes: u64,
    n_written: u64,
}

impl Counted {
    fn new() -> Self {
        Self {
            file: Uuid::now_v7(),
            callers: HashMap::new(),
            n_changes: 0,
            n_written: 0,
        }
    }

    fn is_written(&self) -> bool {
        self.n_changes == self.n_written
    }
}

impl Usage {
    /// Counts into this folder; without one, nothing is counted.
    pub(crate) fn new(folder: Option<PathBuf>, keep: Duration) -> Self {
        Self(Arc::new(Inner {
            folder,
            keep,
            days: Mutex::default(),
            writing: Mutex::default(),
        }))
    }

    /// Counts a request of a caller; both names are empty where they are not known.
    pub(crate) fn count(&self, caller: &str, model: &str, counts: Counts) {
        if self.0.folder.is_some() {
            self.count_on(Day::of(SystemTime::now()), caller, model, counts);
        }
    }

    fn count_on(&self, day: Day, caller: &str, model: &str, counts: Counts) {
        let mut days = self.lock();
        let counted = days.entry(day).or_insert_with(Counted::new);
        counted.n_changes += 1;
        let callers = &mut counted.callers;
        let caller = match callers.len() < MOST_NAMES || callers.contains_key(caller) {
            true => caller,
            false => OTHERS,
        };
        if !callers.contains_key(caller) {
            callers.insert(caller.into(), HashMap::new());
        }
        let Some(models) = callers.get_mut(caller) else {
            return;
        };
        let model = match models.len() < MOST_NAMES || models.contains_key(model) {
            true => model,
            false => OTHERS,
        };
        match models.get_mut(model) {
            Some(all) => all.add(counts),
            None => drop(models.insert(model.to_owned(), counts)),
        }
    }

    /// Writes what was counted from time to time, and removes what is too old. Never ends.
    pub(crate) async fn keep(&self) {
        if self.0.folder.is_none() {
            return std::future::pending().await;
        }
        let mut is_refused = false;
        loop {
            match self.write().await {
                Ok(()) => is_refused = false,
                Err(error) => {
                    // Said once: the counts are kept, and written when that can be done again.
                    if !std::mem::replace(&mut is_refused, true) {
                        tracing::warn!("the usage of callers cannot be written: {error}");
                    }
                }
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }

    /// Writes what was counted since the last time.
    ///
    /// # Errors
    /// When a file cannot be written; its counts are kept.
    pub(crate) async fn write(&self) -> io::Result<()> {
        let usage = self.clone();
        let written = tokio::task::spawn_blocking(move || usage.write_files(SystemTime::now()));
        written.await.map_err(io::Error::other)?
    }

    fn write_files(&self, now: SystemTime) -> io::Result<()> {
        let Some(folder) = &self.0.folder else {
            return Ok(());
        };
        let writing = self.0.writing.lock();
        let _one_at_a_time = writing.unwrap_or_else(PoisonError::into_inner);
        // One that cannot be written does not hold up the others.
        let written: Vec<io::Result<()>> = self
            .unwritten()
            .into_iter()
            .map(|unwritten| self.write_record(folder, unwritten))
            .collect();
        // A day that is over is written for the last time.
        let today = Day::of(now);
        self.lock()
            .retain(|day, counted| *day >= today || !counted.is_written());
        written.into_iter().collect::<io::Result<()>>()?;
        remove_old(folder, Day::of(now - self.0.keep))
    }

    fn write_record(&self, folder: &Path, unwritten: Unwritten) -> io::Result<()> {
        let Unwritten {
            record,
            file,
            n_changes,
        } = unwritten;
        fs::create_dir_all(folder)?;
        let path = folder.join(record.file_name(file));
        whole_file::write(&path, &serde_json::to_vec(&record)?)?;
        if let Some(counted) = self.lock().get_mut(&record.day) {
            counted.n_written = n_changes;
        }
        Ok(())
    }

    /// The days that changed since they were written.
    fn unwritten(&self) -> Vec<Unwritten> {
        let days = self.lock();
        let unwritten = days.iter().filter(|(_, counted)| !counted.is_written());
        let copy = |(day, counted): (&Day, &Counted)| {
            let of_caller = |(caller, models): (&Arc<str>, &HashMap<String, Counts>)| {
                let row = |(model, counts): (&String, &Counts)| Row {
                    caller: caller.to_string(),
                    model: model.clone(),
                    counts: *counts,
                };
                models.iter().map(row).collect::<Vec<_>>()
            };
            Unwritten {
                record: Record {
                    day: *day,
                    rows: counted.callers.iter().flat_map(of_caller).collect(),
                },
                file: counted.file,
                n_changes: counted.n_changes,
            }
        };
        unwritten.map(copy).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Day, Counted>> {
        self.0.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A day as it was counted at a moment.
struct Unwritten {
    record: Record,
    file: Uuid,
    n_changes: u64,
}

fn remove_old(folder: &Path, oldest: Day) -> io::Result<()> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in files {
        let path = file?.path();
        if record::day_of(&path).is_some_and(|day| day < oldest) {
            // Another process may have been first.
            drop(fs::remove_file(path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        requests: 1,
        refused: 0,
        inputs: 2,
        cached: 1,
        tokens: 10,
        truncated: 0,
    };
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + day * DAY
    }

    #[test]
    fn processes_of_one_folder_count_apart_and_are_read_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("usage"));
        for _ in 0..2 {
            let usage = Usage::new(path.clone(), 400 * DAY);
            for caller in ["a", "a", "b"] {
                usage.count_on(Day::of(at(20_000)), caller, "m", ONE);
            }
            usage.write_files(at(20_000)).unwrap();
            usage.count_on(Day::of(at(20_001)), "a", "m", ONE);
            // The day before is over, and not written again.
            usage.write_files(at(20_001)).unwrap();
            assert_eq!(usage.lock().len(), 1);
        }
        let read = record::read(path.as_ref().unwrap()).unwrap();
        assert_eq!(read.damaged.len(), 0);
        let rows: Vec<String> = read
            .rows
            .iter()
            .map(|(key, counts)| format!("{} {} {}", key.day, key.caller, counts.tokens))
            .collect();
        let expected = ["2024-10-04 a 40", "2024-10-04 b 20", "2024-10-05 a 20"];
        assert_eq!(rows, expected);
    }

    #[test]
    fn what_cannot_be_written_is_kept_and_what_is_old_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let usage = Usage::new(Some(path.clone()), 10 * DAY);
        usage.count_on(Day::of(at(100)), "a", "m", ONE);
        // A file in the folder's place.
        fs::write(&path, "").unwrap();
        assert!(usage.write_files(at(101)).is_err());
        fs::remove_file(&path).unwrap();
        usage.write_files(at(101)).unwrap();
        assert_eq!(record::read(&path).unwrap().rows.len(), 1);
        fs::write(path.join("notes.txt"), "").unwrap();
        usage.write_files(at(111)).unwrap();
        assert_eq!(record::read(&path).unwrap().rows.len(), 0);
        assert!(path.join("notes.txt").exists());
    }

    #[test]
    fn a_late_count_of_a_day_that_was_written_is_added_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let usage = Usage::new(Some(folder.path().to_owned()), 400 * DAY);
        usage.count_on(Day::of(at(100)), "a", "m", ONE);
        usage.write_files(at(101)).unwrap();
        assert!(usage.lock().is_empty());
        usage.count_on(Day::of(at(100)), "a", "m", ONE);
        usage.write_files(at(101)).unwrap();
        let read = record::read(folder.path()).unwrap();
        let requests: Vec<u64> = read.rows.values().map(|counts| counts.requests).collect();
        assert_eq!(requests, [2]);
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let usage = Usage::new(None, DAY);
        let day = Day::of(at(1));
        for i in 0..MOST_NAMES + 3 {
            usage.count_on(day, &format!("caller {i}"), "m", ONE);
            usage.count_on(day, "caller 0", &format!("model {i}"), ONE);
        }
        let days = usage.lock();
        let callers = &days[&day].callers;
        assert_eq!(callers.len(), MOST_NAMES + 1);
        assert_eq!(callers["other"]["m"].requests, 3);
        assert_eq!(callers["caller 0"]["other"].requests, 4);
    }
}
