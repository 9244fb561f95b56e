//! Hashes of files: those that hubs tell, and those of bytes as they come or lie on the disk.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::HubError;

/// Bytes that are read at once for the hash.
const READ: usize = 1 << 20;

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
    /// Begins with no bytes.
    pub(crate) fn new(size: u64) -> Self {
        let mut git = Sha1::new();
        git.update(format!("blob {size}\0"));
        Self {
            sha256: Sha256::new(),
            git,
        }
    }

    /// Adds the next bytes.
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

/// The sha256 of a file, and whether a check holds for it.
pub(crate) fn hash_file(path: &Path, size: u64, check: &Check) -> io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(size);
    let mut buffer = vec![0; READ];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish(check)),
            Ok(n) => hasher.update(&buffer[..n], check),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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

/// Returns bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
