//! The value that is kept of one input under one head, in memory and in the file.

use std::sync::Arc;

use embedgate_config::ValuePrecision;
use embedgate_core::{Matrix, SparseVector};
use half::f16;

use super::key::{CacheKey, Head, PerHead};
use crate::batch::Row;

/// The results of one forward pass for one input, as the model gave them.
pub(crate) struct Computed {
    /// The results that were asked for.
    pub row: Row,
    /// Tokens that the model saw.
    pub n_tokens: usize,
    /// Tokens of the whole input.
    pub n_tokens_full: usize,
}

impl Computed {
    /// Rounds the numbers as they are kept, so that an answer does not depend on whether it was computed or kept.
    pub(super) fn into_values(
        self,
        precision: ValuePrecision,
        computed_at: u64,
    ) -> PerHead<Arc<CachedValue>> {
        let Row {
            dense,
            sparse,
            multi_vector,
            token_vectors,
            // Pairs are not kept.
            score: _,
        } = self.row;
        let payloads = [
            dense.map(|numbers| {
                (
                    Head::Dense,
                    Payload::Dense(Numbers::new(numbers, precision)),
                )
            }),
            sparse.map(|SparseVector { indices, values }| {
                let weights = Numbers::new(values, precision);
                let indices = indices.into();
                (Head::Sparse, Payload::Sparse { indices, weights })
            }),
            multi_vector.map(|matrix| (Head::MultiVector, Payload::rows(matrix, precision))),
            token_vectors.map(|matrix| (Head::TokenVectors, Payload::rows(matrix, precision))),
        ];
        let mut values = PerHead::default();
        for (head, payload) in payloads.into_iter().flatten() {
            let value = CachedValue {
                payload,
                n_tokens: self.n_tokens,
                n_tokens_full: self.n_tokens_full,
                computed_at,
            };
            values.set(head, Arc::new(value));
        }
        values
    }
}

/// One result and the token counts of its input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CachedValue {
    /// The numbers, of the model's own width, not normalized.
    pub payload: Payload,
    /// Tokens that the model saw.
    pub n_tokens: usize,
    /// Tokens of the whole input.
    pub n_tokens_full: usize,
    /// Seconds since 1970.
    pub computed_at: u64,
}

/// The result of one head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    /// The dense vector.
    Dense(Numbers),
    /// Token ids, ascending, and the weight of each.
    Sparse {
        /// The ids.
        indices: Box<[u32]>,
        /// A weight an id.
        weights: Numbers,
    },
    /// Token vectors, row after row.
    MultiVector {
        /// The rows.
        rows: Numbers,
        /// Numbers in a row.
        width: usize,
    },
}

impl Payload {
    fn rows(Matrix { data, width }: Matrix, precision: ValuePrecision) -> Self {
        let rows = Numbers::new(data, precision);
        Self::MultiVector { rows, width }
    }
}

/// Numbers as they are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    /// As computed.
    F32(Box<[f32]>),
    /// Halves of the precision, each to be multiplied by the scale: the largest number is 1 before that, so that none
    /// is too large for 16 bits.
    F16 {
        /// The largest absolute number.
        scale: f32,
        /// Each number divided by the scale.
        values: Box<[f16]>,
    },
}

impl Numbers {
    fn new(numbers: Vec<f32>, precision: ValuePrecision) -> Self {
        match precision {
            ValuePrecision::F32 => Self::F32(numbers.into()),
            ValuePrecision::F16 => {
                let largest = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                // Zeros stay zeros, whatever they are divided by; so do numbers too small to divide by.
                let scale = if largest.is_normal() { largest } else { 1.0 };
                let values = numbers.iter().map(|x| f16::from_f32(x / scale)).collect();
                Self::F16 { scale, values }
            }
        }
    }

    /// Counts the numbers.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16 { values, .. } => values.len(),
        }
    }

    /// The first `n` of them.
    #[must_use]
    pub(crate) fn first(&self, n: usize) -> Vec<f32> {
        let n = n.min(self.len());
        match self {
            Self::F32(values) => values[..n].to_vec(),
            Self::F16 { scale, values } => values[..n].iter().map(|x| x.to_f32() * scale).collect(),
        }
    }

    /// All of them.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<f32> {
        self.first(self.len())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(&**values),
            Self::F16 { values, .. } => size_of_val(&**values),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            Self::F32(values) => {
                out.push(0);
                out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            }
            Self::F16 { scale, values } => {
                out.push(1);
                out.extend(scale.to_le_bytes());
                out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n = reader.length()?;
        match reader.array::<1>()?[0] {
            0 => {
                let bytes = reader.take(n.checked_mul(4)?)?;
                let chunks = bytes.as_chunks::<4>().0.iter();
                Some(Self::F32(chunks.map(|b| f32::from_le_bytes(*b)).collect()))
            }
            1 => {
                let scale = f32::from_le_bytes(reader.array()?);
                let bytes = reader.take(n.checked_mul(2)?)?;
                let chunks = bytes.as_chunks::<2>().0.iter();
                let values = chunks.map(|b| f16::from_le_bytes(*b)).collect();
                Some(Self::F16 { scale, values })
            }
            _ => None,
        }
    }

    fn is_of(&self, precision: ValuePrecision) -> bool {
        matches!(self, Self::F32(_)) == (precision == ValuePrecision::F32)
    }
}

/// The first byte of a value in the file; another one is another format, and counts as a miss.
const FORMAT: u8 = 1;
const CHECKSUM: usize = 16;

impl CachedValue {
    /// Memory that the numbers take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match &self.payload {
            Payload::Dense(numbers) => numbers.bytes(),
            Payload::Sparse { indices, weights } => size_of_val(&**indices) + weights.bytes(),
            Payload::MultiVector { rows, .. } => rows.bytes(),
        }
    }

    /// Returns true when the numbers are kept in this precision.
    #[must_use]
    pub(crate) fn is_of(&self, precision: ValuePrecision) -> bool {
        match &self.payload {
            Payload::Dense(numbers)
            | Payload::Sparse {
                weights: numbers, ..
            }
            | Payload::MultiVector { rows: numbers, .. } => numbers.is_of(precision),
        }
    }

    /// The bytes for the file, with a checksum that binds them to the key.
    pub(super) fn to_bytes(&self, key: &CacheKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + 96);
        out.push(FORMAT);
        for n in [
            self.n_tokens as u64,
            self.n_tokens_full as u64,
            self.computed_at,
        ] {
            out.extend(n.to_le_bytes());
        }
        match &self.payload {
            Payload::Dense(numbers) => {
                out.push(0);
                numbers.write(&mut out);
            }
            Payload::Sparse { indices, weights } => {
                out.push(1);
                out.extend((indices.len() as u64).to_le_bytes());
                out.extend(indices.iter().flat_map(|id| id.to_le_bytes()));
                weights.write(&mut out);
            }
            Payload::MultiVector { rows, width } => {
                out.push(2);
                out.extend((*width as u64).to_le_bytes());
                rows.write(&mut out);
            }
        }
        let checksum = checksum(key, &out);
        out.extend(checksum);
        out
    }

    /// The value in these bytes; none when they are not what was written under this key.
    pub(super) fn from_bytes(key: &CacheKey, bytes: &[u8]) -> Option<Self> {
        let (body, stored) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        if checksum(key, body) != stored {
            return None;
        }
        let mut reader = Reader(body);
        if reader.array::<1>()? != [FORMAT] {
            return None;
        }
        let (n_tokens, n_tokens_full) = (reader.length()?, reader.length()?);
        let computed_at = u64::from_le_bytes(reader.array()?);
        let payload = match reader.array::<1>()?[0] {
            0 => Payload::Dense(Numbers::read(&mut reader)?),
            1 => {
                let n = reader.length()?;
                let ids = reader.take(n.checked_mul(4)?)?.as_chunks::<4>().0.iter();
                let indices = ids.map(|b| u32::from_le_bytes(*b)).collect();
                let weights = Numbers::read(&mut reader)?;
                Payload::Sparse { indices, weights }
            }
            2 => {
                let width = reader.length()?;
                let rows = Numbers::read(&mut reader)?;
                Payload::MultiVector { rows, width }
            }
            _ => return None,
        };
        let value = Self {
            payload,
            n_tokens,
            n_tokens_full,
            computed_at,
        };
        reader.0.is_empty().then_some(value)
    }
}

fn checksum(key: &CacheKey, body: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0);
    hasher.update(body);
    let mut out = [0; CHECKSUM];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    out
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        u64::from_le_bytes(self.array()?).try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(precision: ValuePrecision) -> Vec<CachedValue> {
        let row = Row {
            token_vectors: None,
            score: None,
            dense: Some(vec![1.0, -2.5e-3, 3e20]),
            sparse: Some(SparseVector {
                indices: vec![3, 9],
                values: vec![0.25, 0.5],
            }),
            multi_vector: Some(Matrix {
                data: vec![1.0, 2.0, 3.0, 4.0],
                width: 2,
            }),
        };
        let computed = Computed {
            row,
            n_tokens: 3,
            n_tokens_full: 70_000,
        };
        let all = computed.into_values(precision, 123);
        all.iter().map(|(_, value)| (**value).clone()).collect()
    }

    #[test]
    fn values_come_back_from_their_bytes_and_damage_is_found() {
        let key = CacheKey([5; 32]);
        for precision in [ValuePrecision::F32, ValuePrecision::F16] {
            for value in values(precision) {
                let bytes = value.to_bytes(&key);
                assert_eq!(CachedValue::from_bytes(&key, &bytes), Some(value.clone()));
                assert_eq!(CachedValue::from_bytes(&CacheKey([6; 32]), &bytes), None);
                for at in 0..bytes.len() {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1;
                    assert_eq!(CachedValue::from_bytes(&key, &damaged), None);
                    assert_eq!(CachedValue::from_bytes(&key, &bytes[..at]), None);
                }
                assert!(value.is_of(precision));
            }
        }
    }

    #[test]
    fn halves_are_close_whatever_the_scale_and_rounding_again_changes_nothing() {
        for scale in [1e-30_f32, 1.0, 70_000.0, 1e30] {
            let exact: Vec<f32> = (1..100).map(|i| scale * (i as f32 / 99.0)).collect();
            let kept = Numbers::new(exact.clone(), ValuePrecision::F16);
            let rounded = kept.all();
            for (a, b) in exact.iter().zip(&rounded) {
                assert!((a / b - 1.0).abs() < 1e-3, "{a} {b}");
            }
            assert_eq!(
                Numbers::new(rounded.clone(), ValuePrecision::F16).all(),
                rounded
            );
        }
        let zeros = Numbers::new(vec![0.0; 3], ValuePrecision::F16);
        assert_eq!(zeros.all(), [0.0; 3]);
    }
}
