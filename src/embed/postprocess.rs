//! From what is kept to what is answered: cuts and normalizes, and keeps the text of vectors that are asked for again.

use std::sync::Arc;

use embedgate_core::{Head, HeadForm, HeadValue, Matrix, PerHead, SparseVector};
use embedgate_request::{Embedding, Error, VectorText};

use super::pipeline::Values;
use crate::{
    blocking,
    cache::{CacheKey, CachedValue, EmbeddingCache, TextKey, value::Payload},
};

/// Answers of at least so many numbers are made off the threads that serve connections: about 1 ms.
const ELSEWHERE: usize = 500_000;

/// The last steps for every vector of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Postprocess {
    pub(super) dimensions: usize,
    pub(super) normalize: bool,
    pub(super) text: Option<VectorText>,
}

impl Postprocess {
    /// The answers of all inputs. Those that were kept already are likely to be asked for again: their text is kept too.
    pub(super) async fn all(
        self,
        cache: &EmbeddingCache,
        keys: Vec<PerHead<CacheKey>>,
        values: Vec<Values>,
        is_kept: &[bool],
    ) -> Result<Vec<Embedding>, Error> {
        let numbers: usize = values
            .iter()
            .flat_map(PerHead::iter)
            .map(|(_, value)| value.bytes() / 4)
            .sum();
        let is_heavy = numbers >= ELSEWHERE;
        let mut texts = Vec::new();
        if let Some(form) = self.text {
            texts.reserve(values.len());
            for ((keys, values), is_kept) in keys.iter().zip(&values).zip(is_kept) {
                let dense = keys.get(Head::Dense).zip(values.get(Head::Dense));
                texts.push(match dense.filter(|_| *is_kept) {
                    Some((key, value)) => {
                        let render = || text(form, &self.dense(value));
                        let key = TextKey {
                            key: *key,
                            form,
                            dimensions: self.dimensions,
                            normalized: self.normalize,
                        };
                        match is_heavy {
                            true => cache.get_text(&key).await,
                            false => Some(cache.text(key, render).await),
                        }
                    }
                    None => None,
                });
            }
        }
        let postprocess = move || {
            let mut texts = texts.into_iter();
            values
                .iter()
                .map(|values| self.one(values, texts.next().flatten()))
                .collect()
        };
        blocking::run_if_large(is_heavy, postprocess).await
    }

    fn one(self, values: &Values, text: Option<Arc<str>>) -> Embedding {
        // Every head has the same counts: they are the input's.
        let (n_tokens, n_tokens_full) = values
            .iter()
            .next()
            .map_or((0, 0), |(_, value)| (value.n_tokens, value.n_tokens_full));
        let is_text = |head| head == Head::Dense && text.is_some();
        let results = values.iter().filter(|(head, _)| !is_text(*head));
        let results = results.map(|(head, value)| (head, self.result(head, value)));
        Embedding {
            results: results.collect(),
            dense_text: text,
            n_tokens,
            n_tokens_full,
        }
    }

    /// The result of a head, from its kept value.
    fn result(self, head: Head, value: &CachedValue) -> HeadValue {
        match &value.payload {
            Payload::Vector(_) => HeadValue::Vector(self.dense(value)),
            Payload::Weights { indices, weights } => HeadValue::Weights(SparseVector {
                indices: indices.to_vec(),
                values: weights.all(),
            }),
            Payload::Rows { rows, width } => {
                let matrix = Matrix {
                    data: rows.all(),
                    width: *width,
                };
                HeadValue::Rows(token_vectors(head, matrix))
            }
        }
    }

    /// A dense vector, cut to `dimensions`; of length 1 when asked for.
    fn dense(self, value: &CachedValue) -> Vec<f32> {
        let Payload::Vector(numbers) = &value.payload else {
            return Vec::new();
        };
        let mut vector = numbers.first(self.dimensions);
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

/// Token vectors as they are answered: those of ColBERT have length 1.
///
/// Source: FlagEmbedding 1.4.2, `inference/embedder/encoder_only/m3.py`: `normalize(colbert_vecs, dim=-1)`.
fn token_vectors(head: Head, mut matrix: Matrix) -> Matrix {
    let is_normalized = matches!(
        head.form(),
        HeadForm::Rows {
            normalized: true,
            ..
        }
    );
    if is_normalized {
        for i in 0..matrix.rows() {
            normalize(matrix.row_mut(i));
        }
    }
    matrix
}

fn text(form: VectorText, vector: &[f32]) -> Arc<str> {
    let mut out = Vec::with_capacity(form.bytes(vector.len()));
    form.write(vector, &mut out);
    String::from_utf8(out)
        .expect("numbers and base64 are ASCII")
        .into()
}

/// Gives a vector length 1; the zero vector stays as it is.
///
/// Source: PyTorch 2.15, `torch.nn.functional.normalize`: the length is at least 1e-12. Summed in f64.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn normalize(vector: &mut [f32]) {
    // Eight sums side by side: a single one would wait for each addition.
    let mut sums = [0.0_f64; 8];
    let (blocks, rest) = vector.as_chunks::<8>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let rest: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    // A product is several times as fast as a quotient, and in f64 both round to the same f32.
    let scale = 1.0 / (sums.iter().sum::<f64>() + rest).sqrt().max(1e-12);
    for x in vector {
        *x = (f64::from(*x) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::numbers::Numbers;

    fn postprocess(vector: &[f32], dimensions: usize, normalize: bool) -> Vec<f32> {
        let value = CachedValue {
            payload: Payload::Vector(Numbers::F32(vector.into())),
            n_tokens: 3,
            n_tokens_full: 5,
            computed_at: 0,
        };
        let postprocess = Postprocess {
            dimensions,
            normalize,
            text: None,
        };
        postprocess.dense(&value)
    }

    #[test]
    fn vectors_are_cut_and_normalized_as_asked() {
        let whole = [3.0, 4.0, 12.0];
        assert_eq!(postprocess(&whole, 3, false), whole);
        assert_eq!(postprocess(&whole, 2, false), [3.0, 4.0]);
        assert_eq!(postprocess(&whole, 2, true), [0.6, 0.8]);
        assert_eq!(
            postprocess(&whole, 3, true),
            [3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0]
        );
        let long: Vec<f32> = (0..1000_u16).map(f32::from).collect();
        let length: f64 = postprocess(&long, 1000, true)
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum();
        assert!((length - 1.0).abs() < 1e-6);
    }

    #[test]
    fn tiny_huge_and_zero_vectors_stay_finite() {
        assert_eq!(postprocess(&[0.0, 0.0], 2, true), [0.0, 0.0]);
        let huge = postprocess(&[3e30, 4e30], 2, true);
        assert!(
            (huge[0] - 0.6).abs() < 1e-6 && (huge[1] - 0.8).abs() < 1e-6,
            "{huge:?}"
        );
    }
}
