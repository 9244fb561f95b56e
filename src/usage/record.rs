//! The files of usage: one a day and process, read together.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

const SECONDS: u64 = 24 * 3600;

/// A day of the calendar in UTC, as days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(u32);

impl Day {
    /// The day of a time; a clock that stands before 1970 shows the first.
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs() / SECONDS).unwrap_or(u32::MAX))
    }

    fn start(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::from(self.0) * SECONDS)
    }
}

impl fmt::Display for Day {
    /// As `2026-11-30`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_rfc3339_seconds(self.start()).to_string();
        f.write_str(time.split('T').next().unwrap_or_default())
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = humantime::parse_rfc3339(&format!("{text}T00:00:00Z"));
        let is_day = text.len() == "2026-11-30".len();
        let time = time.ok().filter(|_| is_day);
        time.map(Self::of)
            .ok_or_else(|| format!("\"{text}\" is no day, write it as 2026-11-30"))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The counts of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests, refused ones too.
    pub(crate) requests: u64,
    /// Requests that got an error.
    pub(crate) refused: u64,
    /// Inputs of answered requests.
    pub(crate) inputs: u64,
    /// Those of them that were in the cache.
    pub(crate) cached: u64,
    /// Tokens of these inputs, as billed.
    pub(crate) tokens: u64,
    /// Inputs that were cut.
    pub(crate) truncated: u64,
}

impl Counts {
    /// Adds others.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.inputs += other.inputs;
        self.cached += other.cached;
        self.tokens += other.tokens;
        self.truncated += other.truncated;
    }
}

/// The file of one day and process.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) day: Day,
    pub(super) rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) caller: String,
    pub(super) model: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

impl Record {
    /// Begins with the day, so that old files are known by their names.
    pub(super) fn file_name(&self, file: Uuid) -> String {
        format!("{}.{}.json", self.day, file.simple())
    }
}

/// The day of a file of usage; none where it is another file.
pub(super) fn day_of(path: &Path) -> Option<Day> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let (day, _) = name.split_once('.')?;
    day.parse().ok()
}

/// Whose usage it is, of what, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) day: Day,
    pub(crate) caller: String,
    pub(crate) model: String,
}

/// The usage that a folder has.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) rows: BTreeMap<Key, Counts>,
    /// Files that cannot be read.
    pub(crate) damaged: Vec<PathBuf>,
}

/// Reads the files of all days and processes; without the folder there is no usage yet.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn read(folder: &Path) -> io::Result<Read> {
    let mut all = Read::default();
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(error),
    };
    for file in files {
        let path = file?.path();
        if day_of(&path).is_none() {
            continue;
        }
        let record = fs::read(&path).ok();
        let record: Option<Record> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(Record { day, rows }) = record else {
            all.damaged.push(path);
            continue;
        };
        for Row {
            caller,
            model,
            counts,
        } in rows
        {
            let key = Key { day, caller, model };
            all.rows.entry(key).or_default().add(counts);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_and_read() {
        for (days, text) in [(0, "1970-01-01"), (20_787, "2026-11-30")] {
            let day = Day(days);
            assert_eq!(day.to_string(), text);
            assert_eq!(text.parse(), Ok(day));
        }
        for wrong in ["", "2026-11", "2026-13-01", "yesterday", "2026-11-30T00"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
        assert_eq!(Day::of(UNIX_EPOCH - Duration::from_secs(1)), Day(0));
    }

    #[test]
    fn a_damaged_file_is_named_and_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("2026-11-29.a.json");
        fs::write(&damaged, "{").unwrap();
        fs::write(folder.path().join("README"), "").unwrap();
        let whole = r#"{"day":"2026-11-30","rows":[{"caller":"a","model":"m","requests":1,"refused":0,"inputs":1,"cached":0,"tokens":3,"truncated":0}]}"#;
        fs::write(folder.path().join("2026-11-30.b.json"), whole).unwrap();
        let read = read(folder.path()).unwrap();
        assert_eq!(read.damaged, [damaged]);
        let tokens: Vec<u64> = read.rows.values().map(|counts| counts.tokens).collect();
        assert_eq!(tokens, [3]);
    }
}
