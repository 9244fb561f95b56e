//! Files that are on this machine already: in the caches of the hubs' own clients, and in folders that somebody names. Where they
//! are is looked up here; whether they are right is told by their hash alone.
//!
//! Source: huggingface_hub 2.4.0, `file_download.py`, `constants.py`; modelscope 1.40.2, `hub/snapshot_download.py`, and 1.30.0,
//! `hub/utils/caching.py`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::listing::ListedFile;

/// Files up to this size are copied: whoever edits one does not change the cache.
const COPIED: u64 = 1 << 20;

/// Folders in which a model's files may be.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// The caches of Hugging Face's client, each a folder of `models--OWNER--NAME`.
    pub hugging_face: Vec<PathBuf>,
    /// The caches of ModelScope's client, in its layouts of before and after 1.38.
    pub modelscope: Vec<PathBuf>,
    /// The model's files themselves.
    pub folders: Vec<PathBuf>,
}

impl Caches {
    /// The paths at which a file of a model may be. Few of them are there.
    pub(crate) fn candidates(&self, model: &str, entry: &ListedFile) -> Vec<PathBuf> {
        let (owner, name) = model.split_once('/').unwrap_or(("", model));
        let mut found = Vec::new();
        for cache in &self.hugging_face {
            let model = cache.join(format!("models--{owner}--{name}"));
            found.push(model.join("blobs").join(entry.check.hex()));
            found.extend(in_snapshots(&model, entry));
        }
        for cache in &self.modelscope {
            let model = cache.join("models").join(format!("{owner}--{name}"));
            found.extend(in_snapshots(&model, entry));
            // A dot in a name could be a module's in Python.
            let name = name.replace('.', "___");
            for below in ["models", "", "hub/models", "hub"] {
                let model = cache.join(below).join(owner).join(&name);
                found.push(model.join(&entry.path));
            }
        }
        found.extend(self.folders.iter().map(|folder| folder.join(&entry.path)));
        found.retain(|path| {
            let found = path.metadata();
            found.is_ok_and(|found| found.is_file() && found.len() == entry.size)
        });
        found
    }
}

fn in_snapshots(model: &Path, entry: &ListedFile) -> Vec<PathBuf> {
    let Ok(snapshots) = model.join("snapshots").read_dir() else {
        return Vec::new();
    };
    let snapshots = snapshots.filter_map(Result::ok);
    snapshots
        .map(|snapshot| snapshot.path().join(&entry.path))
        .collect()
}

/// Puts a file into another place without its bytes being written again, where the file system can: as a copy that is made when
/// one of the two changes, or as a link; else as a copy.
pub(crate) fn bring(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Not a link to a link: the cache's own may be gone tomorrow.
    let from = from.canonicalize()?;
    if from.metadata()?.len() > COPIED {
        let clone = |from: &File, to: &File| rustix::fs::ioctl_ficlone(to, from);
        if File::create(to)
            .is_ok_and(|made| File::open(&from).is_ok_and(|source| clone(&source, &made).is_ok()))
        {
            return Ok(());
        }
        fs::remove_file(to)?;
        if fs::hard_link(&from, to).is_ok() {
            return Ok(());
        }
    }
    let copied = fs::copy(&from, to).map(|_| ());
    copied.inspect_err(|_| {
        // A part of it is of no use, and takes room.
        drop(fs::remove_file(to));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Check;

    #[test]
    fn every_layout_of_the_clients_is_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let entry = ListedFile {
            path: "1_Pooling/config.json".into(),
            size: 5,
            check: Check::Sha256(hash.into()),
        };
        let put = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "hello").unwrap();
            path
        };
        let expected = [
            put(&format!("hf/models--BAAI--bge.m3/blobs/{hash}")),
            put("hf/models--BAAI--bge.m3/snapshots/abc/1_Pooling/config.json"),
            put("ms/models/BAAI--bge.m3/snapshots/master/1_Pooling/config.json"),
            put("ms/models/BAAI/bge___m3/1_Pooling/config.json"),
            put("ms/BAAI/bge___m3/1_Pooling/config.json"),
            put("ms/hub/models/BAAI/bge___m3/1_Pooling/config.json"),
            put("ms/hub/BAAI/bge___m3/1_Pooling/config.json"),
            put("mine/1_Pooling/config.json"),
        ];
        let caches = Caches {
            hugging_face: vec![folder.path().join("hf"), folder.path().join("none")],
            modelscope: vec![folder.path().join("ms")],
            folders: vec![folder.path().join("mine")],
        };
        assert_eq!(caches.candidates("BAAI/bge.m3", &entry), expected);
        fs::write(&expected[7], "hell").unwrap();
        assert_eq!(caches.candidates("BAAI/bge.m3", &entry), expected[..7]);
    }

    #[test]
    fn small_files_are_copied_and_large_ones_share_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("small"), "small").unwrap();
        fs::write(at("large"), vec![7; 2 << 20]).unwrap();
        std::os::unix::fs::symlink(at("large"), at("link")).unwrap();
        bring(&at("small"), &at("new/small")).unwrap();
        fs::write(at("new/small"), "edited").unwrap();
        assert_eq!(fs::read(at("small")).unwrap(), b"small");
        bring(&at("link"), &at("new/large")).unwrap();
        bring(&at("link"), &at("new/large")).unwrap();
        assert!(!at("new/large").is_symlink());
        assert_eq!(fs::read(at("new/large")).unwrap(), vec![7; 2 << 20]);
    }
}
