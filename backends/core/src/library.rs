//! Finds shared libraries that are loaded at run time.

use std::path::{Path, PathBuf};

/// The paths where a library may be.
#[derive(Clone, Debug, Default)]
pub struct LibraryPaths {
    /// Said by the user: a file or a folder. If there is one, no other place is tried.
    pub named: Option<PathBuf>,
    /// Folders that are searched in this order otherwise.
    pub folders: Vec<PathBuf>,
}

impl LibraryPaths {
    /// Every library of this stem, such as `onnxruntime`, the likeliest first; at least one.
    ///
    /// # Errors
    /// When there is no library: the places that were searched.
    pub fn find(&self, stem: &str) -> Result<Vec<PathBuf>, String> {
        let (found, looked) = match &self.named {
            Some(named) if named.is_dir() => (in_folder(named, stem), named.display().to_string()),
            Some(named) => (
                Vec::from_iter(named.is_file().then(|| named.clone())),
                named.display().to_string(),
            ),
            None => {
                let shown = |folder: &PathBuf| folder.display().to_string();
                let looked: Vec<_> = self.folders.iter().map(shown).collect();
                let found = self
                    .folders
                    .iter()
                    .flat_map(|folder| in_folder(folder, stem));
                (found.collect(), looked.join(", "))
            }
        };
        if found.is_empty() {
            return Err(looked);
        }
        Ok(found)
    }
}

/// The libraries in a folder, the newest first: `libonnxruntime.so`, `libonnxruntime.so.1.32.0`,
/// `libonnxruntime.1.32.0.dylib`, `onnxruntime.dll`.
fn in_folder(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_library(path, stem))
        .collect();
    found.sort_by_cached_key(|path| std::cmp::Reverse(version(path)));
    found
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// The numbers in a library's name.
fn version(path: &Path) -> Vec<u32> {
    name(path)
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn is_library(path: &Path, stem: &str) -> bool {
    let name = name(path);
    let unix = name.starts_with(&format!("lib{stem}."))
        && (name.contains(".so") || name.ends_with(".dylib"));
    (unix || name == format!("{stem}.dll")) && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_that_is_not_there_is_an_error_even_where_another_would_be_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libonnxruntime.so.1.32.0"), "").unwrap();
        let candidates = LibraryPaths {
            named: Some("/nowhere/libonnxruntime.so".into()),
            folders: vec![folder.path().into()],
        };
        let looked = candidates.find("onnxruntime").unwrap_err();
        assert_eq!(looked, "/nowhere/libonnxruntime.so");
    }

    #[test]
    fn folders_are_searched_in_order_and_all_named_when_none_has_it() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let candidates = LibraryPaths {
            named: None,
            folders: vec![a.path().into(), b.path().into()],
        };
        let find = || candidates.find("onnxruntime");
        let looked = find().unwrap_err();
        assert!(
            looked.contains(a.path().to_str().unwrap())
                && looked.contains(b.path().to_str().unwrap()),
            "{looked}"
        );
        let library = b.path().join("libonnxruntime.so.1.32.0");
        std::fs::write(&library, "").unwrap();
        std::fs::write(b.path().join("libonnxruntime_providers_shared.so"), "").unwrap();
        assert_eq!(find().unwrap(), std::slice::from_ref(&library));
        let older = b.path().join("libonnxruntime.so.1.9.0");
        std::fs::write(&older, "").unwrap();
        assert_eq!(find().unwrap(), [library, older], "newest first");
    }
}
