//! Values as bytes of the file, with a checksum that binds them to their key.

use half::f16;

use super::{
    key::CacheKey,
    numbers::Numbers,
    value::{CachedValue, Payload},
};

/// The first byte of a value in the file; another one is another format, and counts as a miss.
const FORMAT: u8 = 1;
const CHECKSUM: usize = 16;

impl CachedValue {
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
            Payload::Vector(numbers) => {
                out.push(0);
                write(numbers, &mut out);
            }
            Payload::Weights { indices, weights } => {
                out.push(1);
                out.extend((indices.len() as u64).to_le_bytes());
                out.extend(indices.iter().flat_map(|id| id.to_le_bytes()));
                write(weights, &mut out);
            }
            Payload::Rows { rows, width } => {
                out.push(2);
                out.extend((*width as u64).to_le_bytes());
                write(rows, &mut out);
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
            0 => Payload::Vector(read(&mut reader)?),
            1 => {
                let n = reader.length()?;
                let ids = reader.take(n.checked_mul(4)?)?.as_chunks::<4>().0.iter();
                let indices = ids.map(|b| u32::from_le_bytes(*b)).collect();
                let weights = read(&mut reader)?;
                Payload::Weights { indices, weights }
            }
            2 => {
                let width = reader.length()?;
                let rows = read(&mut reader)?;
                Payload::Rows { rows, width }
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

fn write(numbers: &Numbers, out: &mut Vec<u8>) {
    out.extend((numbers.len() as u64).to_le_bytes());
    match numbers {
        Numbers::F32(values) => {
            out.push(0);
            out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
        Numbers::F16 { scale, values } => {
            out.push(1);
            out.extend(scale.to_le_bytes());
            out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Numbers> {
    let n = reader.length()?;
    match reader.array::<1>()?[0] {
        0 => {
            let bytes = reader.take(n.checked_mul(4)?)?;
            let chunks = bytes.as_chunks::<4>().0.iter();
            Some(Numbers::F32(
                chunks.map(|b| f32::from_le_bytes(*b)).collect(),
            ))
        }
        1 => {
            let scale = f32::from_le_bytes(reader.array()?);
            let bytes = reader.take(n.checked_mul(2)?)?;
            let chunks = bytes.as_chunks::<2>().0.iter();
            let values = chunks.map(|b| f16::from_le_bytes(*b)).collect();
            Some(Numbers::F16 { scale, values })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use embedgate_config::ValuePrecision;
    use embedgate_core::{Head, HeadValue, Matrix, Outputs, SparseVector};

    use super::*;
    use crate::cache::value::Computed;

    fn values(precision: ValuePrecision) -> Vec<CachedValue> {
        let sparse = SparseVector {
            indices: vec![3, 9],
            values: vec![0.25, 0.5],
        };
        let rows = Matrix {
            data: vec![1.0, 2.0, 3.0, 4.0],
            width: 2,
        };
        let values = [
            (Head::Dense, HeadValue::Vector(vec![1.0, -2.5e-3, 3e20])),
            (Head::Sparse, HeadValue::Weights(sparse)),
            (Head::MultiVector, HeadValue::Rows(rows)),
            (Head::Score, HeadValue::Score(1.0)),
        ];
        let computed = Computed {
            row: values.into_iter().collect(),
            n_tokens: 3,
            n_tokens_full: 70_000,
        };
        let all = computed.into_values(precision, 123);
        assert_eq!(all.heads(), Outputs::BGE_M3, "scores are not kept");
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
}
