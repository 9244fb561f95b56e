//! API keys that the configuration knows by their hash alone, and the secret that keys hashes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The beginning of every key that embedgate makes, so that a key in a public place is recognized.
const PREFIX: &str = "eg_";
const ID_CHARACTERS: usize = 10;
/// 43 of 62 characters carry 256 bits.
const SECRET_CHARACTERS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of a key, written as `ID:64 hex digits`.
///
/// It is BLAKE3's keyed hash of the whole key, under a key derived from the key's public id: equal secrets have unequal hashes.
/// A slow hash would add nothing, as a secret is 256 random bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHash {
    id: String,
    hash: blake3::Hash,
}

/// Makes a key and its hash.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate() -> Result<(String, KeyHash), getrandom::Error> {
    let id = format!("{PREFIX}{}", random_text(ID_CHARACTERS)?);
    let key = format!("{id}_{}", random_text(SECRET_CHARACTERS)?);
    let hash = KeyHash {
        hash: hash(&id, key.as_bytes()),
        id,
    };
    Ok((key, hash))
}

impl KeyHash {
    /// The part of the key that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns true when this is the hash of the key; takes constant time.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        self.hash == hash(&self.id, key)
    }
}

/// The id within a key, where the key has the shape of ours.
#[must_use]
pub fn id_of(key: &[u8]) -> Option<&str> {
    let key = std::str::from_utf8(key).ok()?;
    let (id, _) = key.split_at_checked(PREFIX.len() + ID_CHARACTERS)?;
    id.starts_with(PREFIX).then_some(id)
}

fn hash(id: &str, key: &[u8]) -> blake3::Hash {
    let under = blake3::derive_key("embedgate 2026-11 hash of an API key", id.as_bytes());
    blake3::keyed_hash(&under, key)
}

/// So many random letters and digits.
fn random_text(n: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(n);
    while text.len() < n {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        // Bytes past the last multiple of 62 would make some characters likelier.
        let usable = bytes.iter().filter(|byte| **byte < 248);
        let characters = usable.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(characters.take(n - text.len()));
    }
    Ok(text)
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.hash.to_hex())
    }
}

impl FromStr for KeyHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, hash) = text.split_once(':').ok_or(())?;
        if id_of(id.as_bytes()) != Some(id) {
            return Err(());
        }
        let hash = blake3::Hash::from_hex(hash).map_err(|_| ())?;
        Ok(Self {
            id: id.to_owned(),
            hash,
        })
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What stands here may be a key, by mistake: it is not shown.
        let wrong = |()| {
            de::Error::custom("is no hash of a key: `embedgate key new` prints a key and its hash")
        };
        text.parse().map_err(wrong)
    }
}

/// A secret that keys the hash of a key or an input, so that nobody can make two of one hash.
#[derive(Clone, Copy)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// Makes a secret that nobody knows.
    ///
    /// # Panics
    /// When the system gives no randomness: nothing could be kept apart then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        Self(bytes)
    }

    /// The secret itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for HashKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_matches_its_own_hash_and_no_other() {
        let (key, hash) = generate().unwrap();
        let (other, _) = generate().unwrap();
        assert_ne!(key, other);
        assert_eq!(id_of(key.as_bytes()), Some(hash.id()));
        let read: KeyHash = hash.to_string().parse().unwrap();
        assert!(read.matches(key.as_bytes()));
        assert!(!read.matches(other.as_bytes()));
        assert!(!read.matches(hash.id().as_bytes()));
        // The same secret under another id.
        let moved = key.replacen(hash.id(), &format!("{PREFIX}0000000000"), 1);
        assert!(!read.matches(moved.as_bytes()));
    }

    #[test]
    fn what_is_no_hash_is_refused_without_showing_it() {
        for text in ["", "eg_short:00", "my-secret-key", "eg_0123456789:xyz"] {
            let error = serde_json::from_value::<KeyHash>(text.into()).unwrap_err();
            assert!(error.to_string().contains("embedgate key new"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
