//! The lock of a work folder: one process makes a model at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::error::HubError;

/// Makes the work folder and holds it.
pub(super) fn hold(folder: &Path, target: &Path) -> Result<File, HubError> {
    let path = folder.join("lock");
    loop {
        fs::create_dir_all(folder).map_err(HubError::file(folder))?;
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut lock = match opened {
            // Another process has ended its pull just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(HubError::file(&path))?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is cannot be read where it has not said yet.
                drop(lock.read_to_string(&mut holder));
                return Err(HubError::Busy {
                    folder: target.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(HubError::file(path)(error)),
        }
        // A lock of a file that was removed meanwhile holds nobody off.
        let number = |found: io::Result<fs::Metadata>| found.map(|found| found.ino()).ok();
        if number(lock.metadata()) != number(path.metadata()) {
            continue;
        }
        let written = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(HubError::file(&path))?;
        return Ok(lock);
    }
}

#[cfg(test)]
mod tests {
    use crate::{error::HubError, work_folder::WorkFolder};

    #[test]
    fn a_second_process_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let _first = WorkFolder::begin(target.clone()).unwrap();
        let Err(HubError::Busy { holder, .. }) = WorkFolder::begin(target) else {
            panic!("two hold it");
        };
        assert_eq!(holder, std::process::id().to_string());
    }
}
