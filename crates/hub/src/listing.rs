//! The files of a model's revision, as a hub lists them.

use std::collections::BTreeMap;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{client::Endpoint, error::HubError};

/// The files of a revision.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The hub that it is from.
    pub endpoint: Endpoint,
    /// `OWNER/NAME`.
    pub model: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The name that files are asked for by: a commit where the hub has them.
    pub commit: String,
    /// By path, each once.
    pub entries: Vec<Entry>,
}

/// A file of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, with `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The hash of its bytes.
    pub check: Check,
}

/// A hash that a hub tells of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The SHA-256 hash of the bytes, in hex.
    Sha256(String),
    /// The SHA-1 hash of the bytes as an object of git, in hex: small files of Hugging Face have no other.
    GitSha1(String),
}

impl Check {
    /// The hash, in hex.
    #[must_use]
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }
}

/// Both hashes of a file of known size, as its bytes come.
pub(crate) struct Hasher {
    sha256: Sha256,
    git: Sha1,
}

impl Hasher {
    pub(crate) fn new(size: u64) -> Self {
        let mut git = Sha1::new();
        git.update(format!("blob {size}\0"));
        Self {
            sha256: Sha256::new(),
            git,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8], check: &Check) {
        self.sha256.update(bytes);
        if matches!(check, Check::GitSha1(_)) {
            self.git.update(bytes);
        }
    }

    /// The sha256, and whether the check holds.
    pub(crate) fn finish(self, check: &Check) -> (String, bool) {
        let sha256 = hex(&self.sha256.finalize());
        let holds = match check {
            Check::Sha256(expected) => *expected == sha256,
            Check::GitSha1(expected) => *expected == hex(&self.git.finalize()),
        };
        (sha256, holds)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of a listing in lower case; an error where it is none.
pub(crate) fn hash(text: &str, digits: usize, path: &str) -> Result<String, HubError> {
    let text = text.to_ascii_lowercase();
    match text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text),
        false => Err(HubError::Listing(format!(
            "the hub says of {path} a hash that is none: {text:?}"
        ))),
    }
}

/// Orders entries, and refuses paths that would leave the folder or take each other's place.
pub(crate) fn checked(entries: Vec<Entry>) -> Result<Vec<Entry>, HubError> {
    let mut by_path: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in entries {
        let path = &entry.path;
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == '\\')
        };
        if !path.split('/').all(is_plain) {
            return Err(HubError::Listing(format!(
                "the hub lists {path:?}, which is no path within a folder"
            )));
        }
        let lower = path.to_lowercase();
        if let Some(other) = by_path.get(&lower).filter(|other| other.path != *path) {
            return Err(HubError::Listing(format!(
                "the hub lists {:?} and {path:?}, which are one file where case does not count",
                other.path
            )));
        }
        by_path.insert(lower, entry);
    }
    Ok(by_path.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.into(),
            size: 0,
            check: Check::Sha256(String::new()),
        }
    }

    #[test]
    fn paths_that_leave_the_folder_or_differ_by_case_alone_are_refused() {
        for paths in [
            ["../a", "b"],
            ["/etc/passwd", "b"],
            ["a//b", "b"],
            ["a/./b", "b"],
            ["a\\b", "b"],
            ["Config.json", "config.json"],
        ] {
            assert!(checked(paths.map(entry).into()).is_err(), "{paths:?}");
        }
        let fine = checked(vec![entry("b"), entry("1_Pooling/config.json"), entry("b")]).unwrap();
        let paths: Vec<_> = fine.iter().map(|entry| &*entry.path).collect();
        assert_eq!(paths, ["1_Pooling/config.json", "b"]);
    }

    #[test]
    fn hashes_are_those_of_git_and_of_sha256() {
        // `printf hello | git hash-object --stdin`, and `printf hello | sha256sum`.
        let git = Check::GitSha1("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".into());
        let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        for check in [git, Check::Sha256(sha.into())] {
            let mut hasher = Hasher::new(5);
            hasher.update(b"hel", &check);
            hasher.update(b"lo", &check);
            assert_eq!(hasher.finish(&check), (sha.to_owned(), true));
        }
        let mut hasher = Hasher::new(5);
        let check = Check::Sha256(sha.into());
        hasher.update(b"hellO", &check);
        assert!(!hasher.finish(&check).1);
        assert!(hash("xyz", 40, "a").is_err());
    }
}
