//! Recognizes folders that hold a model elsewhere, or none yet, where a model's own folder was meant.

use std::{fs, path::Path};

/// Says what a folder without a config.json is, and what would be right; none where that is not known.
pub(super) fn problem(folder: &Path) -> Option<String> {
    // Of ModelScope's older client, and of `embedgate pull`.
    if folder.join("._____temp").is_dir() {
        return Some("it holds an unfinished download of ModelScope: download it again, or `embedgate pull` the model".into());
    }
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".embedgate-pull");
    if folder.with_file_name(name).is_dir() {
        return Some(
            "it is not fetched to its end: the same `embedgate pull` goes on where it was".into(),
        );
    }
    if let Some(snapshot) = newest_folder(&folder.join("snapshots")) {
        return Some(format!(
            "it is the top of a hub's cache: the model is in {}",
            snapshot.display()
        ));
    }
    let models = ["hub", "models"].map(|name| folder.join(name));
    let of_cache = models
        .iter()
        .chain([&folder.to_path_buf()])
        .any(|folder| has_models(folder));
    of_cache.then(|| {
        "it is a hub's cache of many models: name the folder of one, below models--OWNER--NAME/snapshots".into()
    })
}

/// The newest folder in a folder.
fn newest_folder(folder: &Path) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders.max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok())
}

/// True where a folder holds models as Hugging Face's client lays them out.
fn has_models(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("models--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_unfinished_downloads_are_told_from_a_folder_that_has_no_model() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &str| {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            let top = folder.path().join(path.split('/').next().unwrap());
            problem(&top).unwrap_or_default()
        };
        assert_eq!(of("empty"), "");
        let top = of("models--BAAI--bge-m3/snapshots/5617a9f");
        assert!(
            top.contains("is in ") && top.ends_with("models--BAAI--bge-m3/snapshots/5617a9f"),
            "{top}"
        );
        for (path, expected) in [
            ("cache/hub/models--BAAI--bge-m3", "many models"),
            ("bge-m3/._____temp", "ModelScope"),
        ] {
            let said = of(path);
            assert!(said.contains(expected), "{path}: {said}");
        }
        fs::create_dir(folder.path().join("empty.embedgate-pull")).unwrap();
        assert!(of("empty").contains("goes on"));
    }
}
