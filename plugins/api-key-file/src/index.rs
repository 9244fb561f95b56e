//! Finds a key by its hash, in time that says nothing about the hashes that are there.

use embedgate_plugin::crypto;

use crate::keys::Key;

/// All keys, sorted by hash.
#[derive(Debug)]
pub(crate) struct Index {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    digest: [u8; 32],
    key: Key,
}

impl Index {
    /// Sorts the keys.
    ///
    /// # Errors
    /// A hash is there twice: one of its callers would never be known.
    pub(crate) fn new(keys: Vec<Key>) -> Result<Self, String> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(digest) = crypto::digest_from_hex(&key.sha256) else {
                return Err(format!(
                    "settings: sha256 of {:?} must be 64 hexadecimal digits",
                    key.name
                ));
            };
            entries.push(Entry { digest, key });
        }
        entries.sort_by_key(|entry| entry.digest);
        if let Some(pair) = entries
            .windows(2)
            .find(|pair| pair[0].digest == pair[1].digest)
        {
            return Err(format!(
                "settings: {:?} and {:?} have the same key",
                pair[0].key.name, pair[1].key.name
            ));
        }
        Ok(Self { entries })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Finds by the first 8 bytes, which a caller may learn, and then compares all in constant time.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Option<&Key> {
        let first = self
            .entries
            .partition_point(|entry| entry.digest[..8] < digest[..8]);
        let alike = self.entries[first..]
            .iter()
            .take_while(|entry| entry.digest[..8] == digest[..8]);
        let mut alike = alike.filter(|entry| crypto::equal(&entry.digest, digest));
        alike.next().map(|entry| &entry.key)
    }
}

#[cfg(test)]
mod tests {
    use embedgate_plugin::test::TestHost;

    use super::*;

    fn key(name: &str, sha256: &str) -> Key {
        let json = serde_json::json!({ "name": name, "sha256": sha256 });
        serde_json::from_value(json).expect("a key")
    }

    #[test]
    fn every_one_of_many_keys_is_found() {
        let _host = TestHost::new().with_crypto();
        let keys = (0..1000_u32).map(|n| {
            key(
                &n.to_string(),
                &format!("{:064x}", n.wrapping_mul(0x9e37_79b9)),
            )
        });
        let index = Index::new(keys.collect()).expect("all different");
        for n in 0..1000_u32 {
            let digest = crypto::digest_from_hex(&format!("{:064x}", n.wrapping_mul(0x9e37_79b9)))
                .expect("digits");
            assert_eq!(
                index.find(&digest).map(|key| key.name.clone()),
                Some(n.to_string())
            );
        }
        assert!(index.find(&[0xff; 32]).is_none());
    }

    #[test]
    fn a_key_that_is_there_twice_is_an_error() {
        let hash = "0a".repeat(32);
        let error = Index::new(vec![key("a", &hash), key("b", &hash.to_uppercase())])
            .expect_err("the same key");
        assert_eq!(error, "settings: \"a\" and \"b\" have the same key");
    }
}
