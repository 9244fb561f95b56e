//! Compiled plugins on disk, so that a start need not compile them again.
//!
//! Whoever can write such a file can run any code in this process. So the folder must be this user's alone, and each
//! file carries a keyed hash that is checked before it is used; the key lies beside it, readable by this user alone.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

const MAGIC: &[u8; 16] = b"embedgate-aot-1\n";
const HASH_BYTES: usize = 32;
/// The file of the key.
const KEY: &str = "key";
/// Files of plugins and settings that are gone are dropped beyond so many, the oldest first.
const MOST_FILES: usize = 64;

/// The folder.
pub(super) struct AotCache {
    folder: PathBuf,
    key: [u8; 32],
}

impl AotCache {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// When it is not this user's alone, or cannot be written.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("{} cannot be made", parent.display()))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("{} cannot be made", folder.display()));
            }
            _ => {}
        }
        check_folder(folder)?;
        let key = key(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
        })
    }

    /// Returns the bytes that were kept under a name, if they are unchanged since.
    pub(super) fn get(&self, name: &blake3::Hash) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(name))
            .ok()?
            .read_to_end(&mut bytes)
            .ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (hash, compiled) = rest.split_at_checked(HASH_BYTES)?;
        let hash = blake3::Hash::from_slice(hash).ok()?;
        (hash == self.hash(name, compiled)).then(|| compiled.to_vec())
    }

    /// Keeps something under a name, all or nothing.
    pub(super) fn put(&self, name: &blake3::Hash, compiled: &[u8]) -> std::io::Result<()> {
        let mut file = begin(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(self.hash(name, compiled).as_bytes())?;
        file.write_all(compiled)?;
        file.as_file().sync_all()?;
        file.persist(self.path(name))?;
        self.sweep();
        Ok(())
    }

    /// Drops the oldest files. That one cannot be dropped hurts nobody.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_ours = path
                    .extension()
                    .is_some_and(|end| end == "aot" || end == "new");
                let modified = path.metadata().ok()?.modified().ok()?;
                is_ours.then_some((modified, path))
            })
            .collect();
        files.sort();
        let n = files.len().saturating_sub(MOST_FILES);
        for (_, path) in files.into_iter().take(n) {
            drop(fs::remove_file(path));
        }
    }

    fn path(&self, name: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{}.aot", name.to_hex()))
    }

    fn hash(&self, name: &blake3::Hash, compiled: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes());
        hasher.update(compiled);
        hasher.finalize()
    }
}

/// Begins a file that only this user can read, which goes away unless it is given a name. A sweep finds what a process that
/// was killed left, by its ending.
fn begin(folder: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new().suffix(".new").tempfile_in(folder)
}

fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    let metadata =
        fs::symlink_metadata(folder).with_context(|| format!("{shown} cannot be read"))?;
    if !metadata.is_dir() {
        bail!("{shown} is no folder");
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        bail!(
            "{shown} belongs to user {}, not to {user} who runs embedgate",
            metadata.uid()
        );
    }
    if metadata.mode() & 0o022 != 0 {
        bail!("{shown} can be written by others: chmod 700 {shown}");
    }
    Ok(())
}

/// The key in the folder; a new one where there is none.
fn key(folder: &Path) -> anyhow::Result<[u8; 32]> {
    let path = &folder.join(KEY);
    let shown = path.display();
    if !path.exists() {
        make_key(folder).with_context(|| format!("{shown} cannot be made"))?;
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        bail!("{shown} can be read by others: remove it");
    }
    let mut key = [0; 32];
    let mut file = File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    file.read_exact(&mut key)
        .with_context(|| format!("{shown} is broken: remove it"))?;
    Ok(key)
}

/// Makes the file of the key, whole or not at all; where two processes do, the first one's stays.
fn make_key(folder: &Path) -> anyhow::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let mut file = begin(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(folder.join(KEY)) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name() -> blake3::Hash {
        blake3::hash(b"a plugin")
    }

    #[test]
    fn what_was_put_is_found_by_the_same_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plugins");
        AotCache::open(&folder)
            .unwrap()
            .put(&name(), b"compiled")
            .unwrap();
        let again = AotCache::open(&folder).unwrap();
        assert_eq!(again.get(&name()).as_deref(), Some(&b"compiled"[..]));
        assert_eq!(again.get(&blake3::hash(b"another")), None);
    }

    #[test]
    fn a_file_that_was_changed_or_moved_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plugins");
        let cache = AotCache::open(&folder).unwrap();
        cache.put(&name(), b"compiled").unwrap();
        let path = cache.path(&name());
        let good = fs::read(&path).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(cache.get(&name()), None, "byte {i}");
            fs::write(&path, &good[..i]).unwrap();
            assert_eq!(cache.get(&name()), None, "{i} bytes");
        }
        let other = blake3::hash(b"another");
        fs::write(cache.path(&other), &good).unwrap();
        assert_eq!(cache.get(&other), None);
        fs::write(&path, &good).unwrap();
        fs::remove_file(folder.join("key")).unwrap();
        assert_eq!(AotCache::open(&folder).unwrap().get(&name()), None);
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let error = AotCache::open(&folder).err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(AotCache::open(&link).is_err());
    }

    #[test]
    fn old_files_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = AotCache::open(&dir.path().join("plugins")).unwrap();
        for i in 0..MOST_FILES + 10 {
            cache.put(&blake3::hash(&i.to_le_bytes()), b"x").unwrap();
        }
        let n = fs::read_dir(&cache.folder).unwrap().count();
        assert_eq!(n, MOST_FILES + 1, "the files and the key");
    }
}
