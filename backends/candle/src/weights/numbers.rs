//! The numbers of a tensor, in any format that weights come in, as f32.

use std::io::{self, Read};

use candle_core::DType;

/// Whether weights come in this format.
pub(super) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

/// Bytes read at once: beside the result nothing large is held.
const BUFFER: usize = 1 << 20;

/// Reads `n` numbers.
pub(super) fn read_f32(
    reader: &mut (impl Read + ?Sized),
    dtype: DType,
    n: usize,
) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(n);
    append(reader, dtype, n, &mut buffer(dtype, n), &mut values)?;
    Ok(values)
}

/// Reads `n` numbers and lends them to `each`, `block` at a time; fewer are in the last one.
pub(super) fn read_blocks(
    reader: &mut (impl Read + ?Sized),
    dtype: DType,
    n: usize,
    block: usize,
    each: &mut dyn FnMut(&[f32]),
) -> io::Result<()> {
    let most = n.min(block);
    let (mut buffer, mut values) = (buffer(dtype, most), Vec::with_capacity(most));
    let mut left = n;
    while left > 0 {
        let count = left.min(block);
        values.clear();
        append(reader, dtype, count, &mut buffer, &mut values)?;
        each(&values);
        left -= count;
    }
    Ok(())
}

/// Room for so many numbers, or for a part of them.
fn buffer(dtype: DType, n: usize) -> Vec<u8> {
    vec![0; (n * dtype.size_in_bytes()).min(BUFFER)]
}

/// Appends `n` numbers, read through the buffer.
fn append(
    reader: &mut (impl Read + ?Sized),
    dtype: DType,
    n: usize,
    buffer: &mut [u8],
    values: &mut Vec<f32>,
) -> io::Result<()> {
    let size = dtype.size_in_bytes();
    let end = values.len() + n;
    while values.len() < end {
        let most = ((end - values.len()) * size).min(buffer.len());
        let bytes = &mut buffer[..most];
        reader.read_exact(bytes)?;
        match dtype {
            DType::F16 => {
                values.extend(chunks(bytes).map(|b| half::f16::from_le_bytes(b).to_f32()))
            }
            DType::BF16 => {
                values.extend(chunks(bytes).map(|b| half::bf16::from_le_bytes(b).to_f32()))
            }
            #[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
            DType::F64 => values.extend(chunks(bytes).map(|b| f64::from_le_bytes(b) as f32)),
            _ => values.extend(chunks(bytes).map(f32::from_le_bytes)),
        }
    }
    Ok(())
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_numbers_in_their_order() {
        let numbers: Vec<f32> = (0..10).map(|i| i as f32 - 4.5).collect();
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
            .collect();
        assert_eq!(
            read_f32(&mut bytes.as_slice(), DType::BF16, 10).unwrap(),
            numbers
        );
        let mut blocks = Vec::new();
        read_blocks(&mut bytes.as_slice(), DType::BF16, 10, 4, &mut |block| {
            blocks.push(block.to_vec());
        })
        .unwrap();
        assert_eq!(blocks, [&numbers[..4], &numbers[4..8], &numbers[8..]]);
    }

    #[test]
    fn what_ends_early_is_an_error() {
        let bytes = [0; 30];
        let mut lent = 0;
        let read = read_blocks(&mut bytes.as_slice(), DType::F32, 8, 4, &mut |block| {
            lent += block.len();
        });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(lent, 4);
        assert!(read_f32(&mut bytes.as_slice(), DType::F32, 8).is_err());
    }
}
