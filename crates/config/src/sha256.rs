//! SHA-256 hashes as a configuration writes them.

/// True for a hash as `sha256sum` writes it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
