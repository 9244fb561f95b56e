//! Puts a whole model in the place of its folder, with the files of the folder that no pull has fetched.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::WorkFolder;
use crate::{
    error::HubError,
    lock::{LOCK_FILE, Lock},
};

impl WorkFolder {
    /// Puts the tree in the target's place, with the record and all files of the target that no pull has fetched. `in_target` are
    /// files of the model that are right there.
    pub(crate) fn publish(
        &self,
        lock: &Lock,
        old: Option<&Lock>,
        in_target: &[PathBuf],
    ) -> Result<(), HubError> {
        for path in in_target {
            let in_tree = self.tree.join(path);
            match fs::remove_file(&in_tree) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(HubError::file(in_tree)(error));
                }
                _ => {}
            }
        }
        if self.target.exists() {
            let listed: BTreeSet<&Path> = lock.files.iter().map(|file| &*file.path).collect();
            let fetched = old
                .into_iter()
                .flat_map(|old| &old.files)
                .map(|file| &*file.path);
            let gone: BTreeSet<&Path> = fetched.filter(|path| !listed.contains(path)).collect();
            keep_others(&self.target, &self.tree, Path::new(""), &gone)?;
            if let Ok(found) = self.target.metadata() {
                let kept = fs::set_permissions(&self.tree, found.permissions());
                kept.map_err(HubError::file(&self.tree))?;
            }
        }
        lock.write(&self.tree)?;
        sync(&self.tree)?;
        let exchanged = match self.target.exists() {
            true => exchange(&self.tree, &self.target, &self.folder.join("old")),
            false => fs::rename(&self.tree, &self.target),
        };
        exchanged.map_err(HubError::file(&self.target))?;
        self.target.parent().map(sync).transpose()?;
        self.end()
    }
}

/// Links the files of a folder into another that has none of their names, but for its record and those that are `gone`.
fn keep_others(
    from: &Path,
    to: &Path,
    within: &Path,
    gone: &BTreeSet<&Path>,
) -> Result<(), HubError> {
    for entry in fs::read_dir(from).map_err(HubError::file(from))? {
        let entry = entry.map_err(HubError::file(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let below = within.join(entry.file_name());
        let kind = entry.file_type().map_err(HubError::file(&path))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(HubError::file(&target))?;
            if let Ok(found) = path.metadata() {
                let kept = fs::set_permissions(&target, found.permissions());
                kept.map_err(HubError::file(&target))?;
                // Only who may give files away can keep their owner.
                drop(std::os::unix::fs::chown(
                    &target,
                    Some(found.uid()),
                    Some(found.gid()),
                ));
            }
            keep_others(&path, &target, &below, gone)?;
        } else if below != Path::new(LOCK_FILE)
            && !gone.contains(&*below)
            && target.symlink_metadata().is_err()
        {
            let linked = fs::hard_link(&path, &target);
            // File systems without links have copies.
            linked
                .or_else(|_| fs::copy(&path, &target).map(|_| ()))
                .map_err(HubError::file(&path))?;
        }
    }
    Ok(())
}

/// Puts a folder in the place of another. In one step where the file system can; else the other is at `old` for a moment, and
/// stays there if the process ends then: all that it had is in the new folder, which the next pull puts in its place.
fn exchange(new: &Path, target: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    fs::rename(target, old)?;
    fs::rename(new, target).inspect_err(|_| {
        // As it was.
        drop(fs::rename(old, target));
    })
}

/// Waits until the names in a folder are on the disk.
fn sync(folder: &Path) -> Result<(), HubError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(HubError::file(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lock::Locked, work_folder::present::tests::entry};

    #[test]
    fn other_files_of_the_folder_stay_and_those_of_the_model_are_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir_all(target.join("onnx")).unwrap();
        for (name, text) in [
            ("config.json", "old"),
            ("old.bin", "old"),
            ("onnx/model_gpu.onnx", "mine"),
            (LOCK_FILE, "old"),
        ] {
            fs::write(target.join(name), text).unwrap();
        }
        let work = WorkFolder::begin(target.clone()).unwrap();
        fs::write(work.tree.join("config.json"), "new").unwrap();
        // Of a pull of another revision that did not end.
        fs::write(work.tree.join("model.safetensors"), "stale").unwrap();
        let record = |paths: &[&str]| Lock {
            source: "hf:a/b".into(),
            endpoint: String::new(),
            revision: String::new(),
            commit: String::new(),
            fetched: 0,
            files: paths
                .iter()
                .map(|path| Locked {
                    path: path.into(),
                    size: 3,
                    sha256: String::new(),
                })
                .collect(),
        };
        let (lock, old) = (
            record(&["config.json"]),
            record(&["config.json", "old.bin"]),
        );
        work.prune(&[&entry("config.json")]).unwrap();
        work.publish(&lock, Some(&old), &[]).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(
            (&*read("config.json"), &*read("onnx/model_gpu.onnx")),
            ("new", "mine")
        );
        assert_eq!(Lock::read(&target).unwrap(), Some(lock));
        // Neither the stale file nor that of the old revision.
        let names = fs::read_dir(&target)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["config.json", LOCK_FILE, "onnx"]);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else stays");
    }
}
