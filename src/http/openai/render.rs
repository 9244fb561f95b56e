//! From an answer to the bytes of a body.
//!
//! The envelope is written by hand: most of a body is vectors, and those that are kept as text are copied as they are.

use std::io::Write;

use crate::request::{Dense, EmbedResponse, VectorText};

/// The envelope of an item takes less.
const BYTES_PER_ITEM: usize = 64;

pub(super) fn response(answer: &EmbedResponse, encoding: VectorText) -> Vec<u8> {
    let vectors: usize = answer
        .embeddings
        .iter()
        .filter_map(|embedding| embedding.dense.as_ref())
        .map(|dense| written_bytes(dense, encoding) + BYTES_PER_ITEM)
        .sum();
    let mut out = Vec::with_capacity(vectors + 256);
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (i, embedding) in answer.embeddings.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        json(&mut out, &i);
        out.extend_from_slice(br#","embedding":"#);
        match &embedding.dense {
            Some(Dense::Text(text)) => out.extend_from_slice(text.as_bytes()),
            Some(Dense::Numbers(vector)) => encoding.write(vector, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
    out.extend_from_slice(br#"],"model":"#);
    json(&mut out, &answer.model);
    let n = answer.n_tokens();
    write!(
        out,
        r#","usage":{{"prompt_tokens":{n},"total_tokens":{n}}}}}"#
    )
    .expect("writing into memory always succeeds");
    out
}

fn written_bytes(dense: &Dense, encoding: VectorText) -> usize {
    match dense {
        Dense::Text(text) => text.len(),
        Dense::Numbers(vector) => encoding.bytes(vector.len()),
    }
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .expect("strings and finite numbers into memory always succeed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Embedding;

    fn answer(vector: Vec<f32>) -> EmbedResponse {
        let embedding = Embedding {
            dense: Some(Dense::Numbers(vector)),
            sparse: None,
            multi_vector: None,
            n_tokens: 3,
            n_tokens_full: 3,
        };
        EmbedResponse {
            model: "m\"\n".into(),
            embeddings: vec![embedding.clone(), embedding],
            n_cached: 0,
            headers: Vec::new(),
        }
    }

    #[test]
    fn floats_round_trip_to_the_same_bits() {
        let vector: Vec<f32> = (1..10_000_u32)
            .map(|i| f32::from_bits(0x3000_0000 + i * 7919))
            .chain([0.0, -0.0])
            .collect();
        let json: serde_json::Value =
            serde_json::from_slice(&response(&answer(vector.clone()), VectorText::Numbers))
                .unwrap();
        let back: Vec<f32> = serde_json::from_value(json["data"][1]["embedding"].clone()).unwrap();
        assert!(
            vector
                .iter()
                .zip(&back)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert_eq!(json["usage"]["total_tokens"], 6);
        assert_eq!(json["model"], "m\"\n");
    }

    #[test]
    fn base64_is_little_endian_padded_and_standard() {
        let json: serde_json::Value =
            serde_json::from_slice(&response(&answer(vec![1.0, -2.5]), VectorText::Base64))
                .unwrap();
        assert_eq!(json["data"][0]["embedding"], "AACAPwAAIMA=");
    }
}
