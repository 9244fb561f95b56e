//! Files that stand in the place of others: what a download left behind.

use std::{fs::File, io::Read, path::Path};

/// Says what a file is that is not what its name says: a pointer of Git LFS, a page of HTML, a device, or empty. None for any other, and
/// for one that cannot be read.
#[must_use]
pub fn impostor(path: &Path) -> Option<&'static str> {
    let mut head = Vec::new();
    // Before it is opened: a pipe that nobody writes to would be waited for.
    let kind = path.metadata().ok()?.file_type();
    if kind.is_dir() {
        return None;
    }
    if !kind.is_file() {
        return Some("is no regular file, but a device or a pipe: put the file itself there");
    }
    let file = File::open(path).ok()?;
    file.take(256).read_to_end(&mut head).ok()?;
    let text = head.trim_ascii_start();
    let begins = |with: &str| {
        let begin = text.get(..with.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    if begins("version https://git-lfs") {
        Some(
            "is a pointer of Git LFS and not the file itself: run `git lfs pull` in the model's folder, or download the file",
        )
    } else if begins("<!doctype html") || begins("<html") {
        Some("is a page of HTML and not the file itself: download the file again")
    } else if head.is_empty() {
        Some("is empty: download the file again")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_pages_are_told_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let says = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            impostor(&path).unwrap_or_default()
        };
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        assert!(says(pointer).contains("git lfs pull"));
        assert!(says(b"\n<!DOCTYPE html><html>").contains("HTML"));
        assert!(says(b"").contains("empty"));
        assert_eq!(says(b"{\"a\": 1}"), "");
        assert_eq!(impostor(folder.path()), None);
    }
}
