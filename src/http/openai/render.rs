//! From an answer to the bytes of a body.

use base64_simd::STANDARD;
use serde::Serialize;

use super::parse::Encoding;
use crate::request::{EmbedResponse, Embedding};

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// A number takes about so many bytes as JSON.
const BYTES_PER_FLOAT: usize = 13;

pub(super) fn response(answer: &EmbedResponse, encoding: Encoding) -> Vec<u8> {
    let n_tokens = answer.n_tokens();
    let body = Body {
        object: "list",
        data: answer
            .embeddings
            .iter()
            .enumerate()
            .map(|(i, e)| item(i, e, encoding))
            .collect(),
        model: &answer.model,
        usage: Usage {
            prompt_tokens: n_tokens,
            total_tokens: n_tokens,
        },
    };
    let numbers: usize = answer
        .embeddings
        .iter()
        .map(|embedding| embedding.vector.len())
        .sum();
    let mut bytes = Vec::with_capacity(numbers * BYTES_PER_FLOAT + 256);
    serde_json::to_writer(&mut bytes, &body)
        .expect("strings and finite numbers into a vector always succeed");
    bytes
}

fn item(index: usize, embedding: &Embedding, encoding: Encoding) -> Item<'_> {
    let vector = embedding.vector.as_slice();
    let embedding = match encoding {
        Encoding::Float => Vector::Float(vector),
        Encoding::Base64 => Vector::Base64(base64(vector)),
    };
    Item {
        object: "embedding",
        index,
        embedding,
    }
}

/// Little-endian f32 in padded standard base64.
fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode_to_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(vector: Vec<f32>) -> EmbedResponse {
        let embedding = Embedding {
            vector,
            n_tokens: 3,
            n_tokens_full: 3,
        };
        EmbedResponse {
            model: "m\"\n".into(),
            embeddings: vec![embedding.clone(), embedding],
            n_cached: 0,
        }
    }

    #[test]
    fn floats_round_trip_to_the_same_bits() {
        let vector: Vec<f32> = (1..10_000_u32)
            .map(|i| f32::from_bits(0x3000_0000 + i * 7919))
            .chain([0.0, -0.0])
            .collect();
        let json: serde_json::Value =
            serde_json::from_slice(&response(&answer(vector.clone()), Encoding::Float)).unwrap();
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
            serde_json::from_slice(&response(&answer(vec![1.0, -2.5]), Encoding::Base64)).unwrap();
        assert_eq!(json["data"][0]["embedding"], "AACAPwAAIMA=");
    }
}
