//! What authenticators compute, done by the host at native speed. Grant: `crypto = {}`.

use crate::host::crypto;

pub use crate::bindings::host::embedgate::plugin::crypto::JwtError;

/// Checks a token's signature, `exp`, `nbf`, `iss` and `aud`, and returns its claims as JSON text.
///
/// `issuer` is a name from the plugin's grant, not a URL.
///
/// # Errors
/// What of it does not hold.
pub fn verify_jwt(token: &str, issuer: &str) -> Result<String, JwtError> {
    crypto::verify_jwt(token, issuer)
}

/// Returns the SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    digest(&crypto::sha256(data))
}

/// Returns the HMAC-SHA-256 of `data` under `key`.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    digest(&crypto::hmac_sha256(key, data))
}

/// Compares in constant time, for equal lengths; different lengths are unequal.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    crypto::equal(a, b)
}

/// Reads hexadecimal digits of either case; none unless there are 64 of them.
pub fn digest_from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("the host's digests have 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_from_hex_of_either_case() {
        let expected = [0xAB; 32];
        assert_eq!(digest_from_hex(&"ab".repeat(32)), Some(expected));
        assert_eq!(digest_from_hex(&"AB".repeat(32)), Some(expected));
        assert_eq!(digest_from_hex(&"ab".repeat(31)), None);
        assert_eq!(digest_from_hex(&"ag".repeat(32)), None);
        assert_eq!(digest_from_hex(&"é".repeat(32)), None);
    }
}
