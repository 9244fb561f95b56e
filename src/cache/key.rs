//! The identity of a result.

use embedgate_core::Head;
use embedgate_request::{HashKey, Input, Side, Truncation};

/// The identity of a result: namespace, model fingerprint, head, kind and bytes of the input, prompt, truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey(pub(super) [u8; 32]);

/// The facts that a result depends on, apart from the principal. `dimensions`, normalization and encoding are applied
/// later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyParts<'a> {
    /// Identity of the model's vectors.
    pub fingerprint: &'a blake3::Hash,
    /// Put in front of texts.
    pub prompt: &'a str,
    /// The treatment of an over-long input.
    pub truncation: Truncation,
    /// The input.
    pub input: &'a Input,
}

impl CacheKey {
    /// The key of one head's result, under a secret: nobody can make two inputs of one key.
    pub(super) fn new(
        hash_key: &HashKey,
        namespace: Option<&str>,
        parts: &KeyParts<'_>,
        head: Head,
    ) -> CacheKey {
        let mut hasher = blake3::Hasher::new_keyed(hash_key.bytes());
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        // One bit tells nobody from a principal without a name.
        field(&[u8::from(namespace.is_some())]);
        field(namespace.unwrap_or_default().as_bytes());
        field(parts.fingerprint.as_bytes());
        let (truncation, most) = match parts.truncation {
            Truncation::Refuse => (0, None),
            Truncation::Cut { side, most } => (1 + u8::from(side == Side::Left), most),
        };
        field(&[head as u8, truncation]);
        // A most of 0 tokens is none.
        field(&(most.unwrap_or(0) as u64).to_le_bytes());
        match parts.input {
            Input::Text(text) => {
                field(b"text");
                field(parts.prompt.as_bytes());
                field(text.as_bytes());
            }
            Input::Tokens(ids) => {
                field(b"tokens");
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                field(&bytes);
            }
        }
        CacheKey(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    type Fields = (
        Option<String>,
        Option<bool>,
        String,
        bool,
        Vec<u32>,
        String,
        u8,
    );

    fn fields() -> impl Strategy<Value = Fields> {
        let word = "[ab]{0,2}";
        let ids = prop::collection::vec(0_u32..3, 0..3);
        (
            prop::option::of(word),
            any::<Option<bool>>(),
            word,
            any::<bool>(),
            ids,
            word,
            0_u8..3,
        )
    }

    fn key(of: &Fields) -> CacheKey {
        let (namespace, cut, prompt, is_text, ids, text, head) = of;
        let input = if *is_text {
            Input::Text(text.clone())
        } else {
            Input::Tokens(ids.clone())
        };
        let parts = KeyParts {
            fingerprint: &blake3::hash(b"model"),
            prompt,
            truncation: match cut {
                None => Truncation::Refuse,
                Some(false) => Truncation::Cut {
                    side: Side::Left,
                    most: None,
                },
                Some(true) => Truncation::Cut {
                    side: Side::Right,
                    most: None,
                },
            },
            input: &input,
        };
        let head = Head::ALL[usize::from(*head)];
        CacheKey::new(&HashKey::from([7; 32]), namespace.as_deref(), &parts, head)
    }

    /// The fields that count: an input is either text, with the prompt, or ids, without.
    fn relevant(of: &Fields) -> Fields {
        let mut of = of.clone();
        if of.3 {
            of.4.clear();
        } else {
            (of.2, of.5) = (String::new(), String::new());
        }
        of
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_where_the_fields_are(all in prop::collection::vec(fields(), 2..40)) {
            let distinct: HashSet<_> = all.iter().map(relevant).collect();
            let keys: HashSet<_> = all.iter().map(key).collect();
            prop_assert_eq!(distinct.len(), keys.len());
        }
    }

    #[test]
    fn another_hash_key_gives_other_keys() {
        let input = Input::Text("a".into());
        let parts = KeyParts {
            fingerprint: &blake3::hash(b"model"),
            prompt: "",
            truncation: Truncation::Cut {
                side: Side::Right,
                most: None,
            },
            input: &input,
        };
        let [a, b] = [HashKey::random(), HashKey::random()]
            .map(|k| CacheKey::new(&k, None, &parts, Head::Dense));
        assert_ne!(a, b);
    }
}
