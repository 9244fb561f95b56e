//! The files of a model's revision, as a hub lists them.

use std::collections::BTreeMap;

use crate::{endpoint::Endpoint, error::HubError, hash::Check};

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
    pub entries: Vec<ListedFile>,
}

/// A file of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative, with `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The hash of its bytes.
    pub check: Check,
}

/// Orders entries, and refuses paths that would leave the folder or take each other's place.
pub(crate) fn checked(entries: Vec<ListedFile>) -> Result<Vec<ListedFile>, HubError> {
    let mut by_path: BTreeMap<String, ListedFile> = BTreeMap::new();
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

    fn entry(path: &str) -> ListedFile {
        ListedFile {
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
}
