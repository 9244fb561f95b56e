//! From an answer to the bytes of a body.
//!
//! The envelope is written by hand: most of a body is vectors, and those that are kept as text are copied as they are.

use std::{collections::HashMap, io::Write};

use embedgate_core::{Head, HeadValue, Matrix, SparseVector};
use embedgate_request::{Dense, EmbedResponse, Embedding, VectorText};

use super::{
    super::json,
    parse::{ColbertFormat, Form, SparseFormat},
};
use crate::model::tokenizer::TextTokenizer;

/// The envelope of an item takes less.
const BYTES_PER_ITEM: usize = 64;

pub(super) fn response(
    answer: &EmbedResponse,
    form: &Form,
    tokenizer: Option<&TextTokenizer>,
) -> Vec<u8> {
    let items: usize = answer
        .embeddings
        .iter()
        .map(|embedding| written_bytes(embedding, form) + BYTES_PER_ITEM)
        .sum();
    let mut out = Vec::with_capacity(items + 256);
    out.extend_from_slice(br#"{"object":"list","data":"#);
    let all = answer.embeddings.iter().enumerate();
    json::list(&mut out, all, |out, (i, embedding)| {
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        json::write(out, &i);
        out.extend_from_slice(br#","embedding":"#);
        form.dense.write(out, embedding.dense());
        for (head, names) in Head::named() {
            let Some(value) = embedding.results.get(head).filter(|_| head != Head::Dense) else {
                continue;
            };
            write!(out, r#","{}":"#, names.member).expect("writing into memory always succeeds");
            match value {
                HeadValue::Vector(vector) => form.dense.write(out, Some(Dense::Numbers(vector))),
                HeadValue::Weights(weights) => sparse(out, weights, form, tokenizer),
                HeadValue::Rows(vectors) => colbert(out, vectors, form.colbert),
                HeadValue::Score(score) => json::write(out, score),
            }
        }
        out.push(b'}');
    });
    out.extend_from_slice(br#","model":"#);
    json::write(&mut out, &answer.model);
    let n = answer.n_tokens();
    write!(
        out,
        r#","usage":{{"prompt_tokens":{n},"total_tokens":{n}}}}}"#
    )
    .expect("writing into memory always succeeds");
    out
}

fn written_bytes(embedding: &Embedding, form: &Form) -> usize {
    let text = embedding.dense_text.as_ref().map_or(4, |text| text.len());
    let results = embedding.results.iter().map(|(_, value)| match value {
        HeadValue::Vector(vector) => form.dense.bytes(vector.len()),
        HeadValue::Weights(sparse) => 32 * sparse.values.len(),
        HeadValue::Rows(vectors) => {
            let numbers = match form.colbert {
                ColbertFormat::Float => VectorText::Numbers,
                ColbertFormat::Base64 | ColbertFormat::Base64F16 => VectorText::Base64,
            };
            numbers.bytes(vectors.data.len())
        }
        HeadValue::Score(_) => VectorText::Numbers.bytes(1),
    });
    text + results.sum::<usize>()
}

/// Lexical weights. Elasticsearch takes no dots in names of features, so that they are written as `__`; should two tokens
/// then have one name, the larger weight counts.
fn sparse(
    out: &mut Vec<u8>,
    weights: &SparseVector,
    form: &Form,
    tokenizer: Option<&TextTokenizer>,
) {
    let name = |id: &u32| {
        let name = tokenizer.and_then(|tokenizer| tokenizer.name(*id));
        name.unwrap_or_else(|| id.to_string())
    };
    let by_name = |out: &mut Vec<u8>, name: &dyn Fn(&u32) -> String| {
        let mut names: Vec<(String, f32)> = Vec::with_capacity(weights.indices.len());
        let mut places = HashMap::new();
        for (id, weight) in weights.indices.iter().zip(&weights.values) {
            let name = name(id);
            match places.get(&name) {
                Some(place) => {
                    let (_, kept): &mut (String, f32) = &mut names[*place];
                    *kept = kept.max(*weight);
                }
                None => {
                    places.insert(name.clone(), names.len());
                    names.push((name, *weight));
                }
            }
        }
        out.push(b'{');
        for (i, (name, weight)) in names.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json::write(out, name);
            out.push(b':');
            json::write(out, weight);
        }
        out.push(b'}');
    };
    match form.sparse {
        SparseFormat::Milvus => by_name(out, &u32::to_string),
        SparseFormat::Elasticsearch => by_name(out, &|id| name(id).replace('.', "__")),
        SparseFormat::Qdrant => {
            out.extend_from_slice(br#"{"indices":"#);
            json::write(out, &weights.indices);
            out.extend_from_slice(br#","values":"#);
            json::write(out, &weights.values);
            if form.sparse_tokens {
                out.extend_from_slice(br#","tokens":"#);
                json::list(out, &weights.indices, |out, id| json::write(out, &name(id)));
            }
            out.push(b'}');
        }
    }
}

/// Token vectors, `(tokens - 1, dimensions)`.
fn colbert(out: &mut Vec<u8>, vectors: &Matrix, form: ColbertFormat) {
    let (rows, width) = (vectors.rows(), vectors.width);
    let mut begin = |dtype: &str| {
        write!(
            out,
            r#"{{"shape":[{rows},{width}],"dtype":"{dtype}","data":"#
        )
        .expect("writing into memory always succeeds");
    };
    match form {
        ColbertFormat::Float => {
            json::list(out, 0..rows, |out, i| json::write(out, vectors.row(i)));
            return;
        }
        ColbertFormat::Base64 => {
            begin("float32");
            VectorText::Base64.write(&vectors.data, out);
        }
        ColbertFormat::Base64F16 => {
            begin("float16");
            let halves = vectors.data.iter().map(|x| half::f16::from_f32(*x));
            let bytes: Vec<u8> = halves.flat_map(half::f16::to_le_bytes).collect();
            out.push(b'"');
            base64_simd::STANDARD.encode_append(&bytes, out);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dense::DenseForm;

    fn answer(vector: Vec<f32>) -> EmbedResponse {
        let dense = (Head::Dense, HeadValue::Vector(vector));
        let embedding = Embedding {
            results: std::iter::once(dense).collect(),
            dense_text: None,
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

    fn form(dense: DenseForm) -> Form {
        Form {
            dense,
            sparse: SparseFormat::Qdrant,
            sparse_tokens: false,
            colbert: ColbertFormat::Float,
        }
    }

    #[test]
    fn floats_round_trip_to_the_same_bits() {
        let vector: Vec<f32> = (1..10_000_u32)
            .map(|i| f32::from_bits(0x3000_0000 + i * 7919))
            .chain([0.0, -0.0])
            .collect();
        let json: serde_json::Value = serde_json::from_slice(&response(
            &answer(vector.clone()),
            &form(DenseForm::Float),
            None,
        ))
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
        let json: serde_json::Value = serde_json::from_slice(&response(
            &answer(vec![1.0, -2.5]),
            &form(DenseForm::Base64),
            None,
        ))
        .unwrap();
        assert_eq!(json["data"][0]["embedding"], "AACAPwAAIMA=");
    }
}
