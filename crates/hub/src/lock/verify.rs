//! Compares the files of a folder with its record.

use std::{fs, io, path::Path};

use super::{Lock, Locked};
use crate::{
    error::HubError,
    hash::{Check, hash_file},
};

/// The state of a file of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it must be.
    Right,
    /// It is not there.
    Missing,
    /// It has another length.
    Length(u64),
    /// It has other bytes.
    Bytes,
}

/// Reads every file of the record, and says of each whether it is right. No request is sent.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn verify<'a>(
    folder: &'a Path,
    lock: &'a Lock,
) -> impl Iterator<Item = Result<(&'a Locked, Verdict), HubError>> {
    lock.files.iter().map(|file| {
        let path = folder.join(&file.path);
        let verdict = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Missing,
            Err(error) => return Err(HubError::file(path)(error)),
            Ok(found) if found.len() != file.size => Verdict::Length(found.len()),
            Ok(_) => {
                let check = Check::Sha256(file.sha256.clone());
                let (_, holds) =
                    hash_file(&path, file.size, &check).map_err(HubError::file(path))?;
                match holds {
                    true => Verdict::Right,
                    false => Verdict::Bytes,
                }
            }
        };
        Ok((file, verdict))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::LOCK_FILE;

    #[test]
    fn a_damaged_a_missing_and_a_cut_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, size| Locked {
            path: name.into(),
            size,
            // Of "hello".
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".into(),
        };
        let lock = Lock {
            source: "hf:a/b".into(),
            endpoint: "http://127.0.0.1".into(),
            revision: "main".into(),
            commit: "c".into(),
            fetched: 0,
            files: ["right", "damaged", "cut", "missing"]
                .map(|name| file(name, 5))
                .into(),
        };
        lock.write(folder.path()).unwrap();
        assert_eq!(Lock::read(folder.path()).unwrap().as_ref(), Some(&lock));
        for (name, text) in [("right", "hello"), ("damaged", "hellO"), ("cut", "hell")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let verdicts: Vec<_> = verify(folder.path(), &lock)
            .map(|one| one.unwrap().1)
            .collect();
        let expected = [
            Verdict::Right,
            Verdict::Bytes,
            Verdict::Length(4),
            Verdict::Missing,
        ];
        assert_eq!(verdicts, expected);
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Lock::read(none.path()).unwrap(), None);
        fs::write(none.path().join(LOCK_FILE), "{").unwrap();
        assert!(Lock::read(none.path()).is_err());
    }
}
