//! Recognizes folders that hold a model elsewhere, or none yet, where a model's own folder was meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::other_format;

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
    // The newest of the model's revisions.
    if let Some(snapshot) = newest_folder(&folder.join("snapshots")) {
        return Some(format!(
            "it is the top of a hub's cache: the model is in {}",
            snapshot.display()
        ));
    }
    let mut found = Vec::new();
    models_below(folder, DEPTH, &mut Vec::new(), &mut found);
    let Some(first) = found.first() else {
        return other_format(folder).map(str::to_owned);
    };
    Some(match found.len() {
        1 => format!("the model is in {}", first.display()),
        _ => format!(
            "it is a folder of many models: name one of them, such as {}",
            first.display()
        ),
    })
}

/// Models lie at most so deep in the caches of the hubs' clients.
const DEPTH: usize = 5;
/// Larger trees are no cache, or are too large to be looked through.
const MOST_FOLDERS: usize = 1000;
/// Folders of a model that hold a copy of its configuration.
const PARTS: [&str; 2] = ["onnx", "openvino"];

/// The folders below this one that hold a model, the first two at most.
fn models_below(folder: &Path, depth: usize, seen: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    below.sort();
    for path in below {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_looked_into = path.is_dir() && !name.starts_with('.') && !PARTS.contains(&&*name);
        if !is_looked_into || seen.len() > MOST_FOLDERS || found.len() > 1 {
            continue;
        }
        if path.join("config.json").exists() && path.join("tokenizer.json").exists() {
            found.push(path);
            continue;
        }
        seen.push(path.clone());
        if depth > 1 {
            models_below(&path, depth - 1, seen, found);
        }
    }
}

/// The newest folder in a folder.
fn newest_folder(folder: &Path) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders.max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok())
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
        let said = of("bge-m3/._____temp");
        assert!(said.contains("ModelScope"), "{said}");
        // The caches of both hubs' clients, of before and now.
        for path in [
            "hf/hub/models--BAAI--bge-m3/snapshots/5617a9f",
            "ms/models/BAAI--bge-m3/snapshots/master",
            "old/hub/models/BAAI/bge-m3",
        ] {
            let model = folder.path().join(path);
            fs::create_dir_all(model.join("onnx")).unwrap();
            for file in ["config.json", "tokenizer.json", "onnx/config.json"] {
                fs::write(model.join(file), "{}").unwrap();
            }
            let said = of(path);
            assert!(
                said.starts_with("the model is in ") && said.ends_with(path),
                "{said}"
            );
        }
        fs::create_dir_all(folder.path().join("old/hub/models/BAAI/other")).unwrap();
        for file in ["config.json", "tokenizer.json"] {
            fs::write(
                folder.path().join("old/hub/models/BAAI/other").join(file),
                "",
            )
            .unwrap();
        }
        let said = of("old");
        assert!(
            said.contains("many models") && said.ends_with("BAAI/bge-m3"),
            "{said}"
        );
        // A model that has lost its configuration is none of its own parts.
        assert_eq!(of("lost/onnx"), "");
        fs::create_dir(folder.path().join("empty.embedgate-pull")).unwrap();
        assert!(of("empty").contains("goes on"));
    }
}
