//! The numbers of a tensor, in any format that weights come in, as f32.

use std::io::{self, Read};

use crate::dtype::Dtype;

/// Bytes read at once: beside the result nothing large is held.
const BUFFER: usize = 1 << 20;

/// Reads numbers of one format.
pub(super) struct Numbers<'a, R: ?Sized> {
    reader: &'a mut R,
    dtype: Dtype,
    buffer: Vec<u8>,
}

impl<'a, R: Read + ?Sized> Numbers<'a, R> {
    /// A reader of numbers of this format.
    pub(super) fn new(reader: &'a mut R, dtype: Dtype) -> Self {
        Self {
            reader,
            dtype,
            buffer: Vec::new(),
        }
    }

    /// Reads `n` numbers.
    pub(super) fn read(mut self, n: usize) -> io::Result<Vec<f32>> {
        let mut values = Vec::with_capacity(n);
        self.append(n, &mut values)?;
        Ok(values)
    }

    /// Reads `n` numbers and lends them to `each`, `block` at a time; fewer are in the last one.
    pub(super) fn lend_blocks(
        mut self,
        n: usize,
        block: usize,
        each: &mut dyn FnMut(&[f32]),
    ) -> io::Result<()> {
        let mut values = Vec::with_capacity(n.min(block));
        let mut left = n;
        while left > 0 {
            let count = left.min(block);
            values.clear();
            self.append(count, &mut values)?;
            each(&values);
            left -= count;
        }
        Ok(())
    }

    /// Appends `n` numbers, read through the buffer.
    fn append(&mut self, n: usize, values: &mut Vec<f32>) -> io::Result<()> {
        let size = self.dtype.bytes();
        let needed = (n * size).min(BUFFER);
        self.buffer.resize(self.buffer.len().max(needed), 0);
        let end = values.len() + n;
        while values.len() < end {
            let most = ((end - values.len()) * size).min(self.buffer.len());
            let bytes = &mut self.buffer[..most];
            self.reader.read_exact(bytes)?;
            match self.dtype {
                Dtype::F16 => {
                    values.extend(chunks(bytes).map(|b| half::f16::from_le_bytes(b).to_f32()))
                }
                Dtype::BF16 => {
                    values.extend(chunks(bytes).map(|b| half::bf16::from_le_bytes(b).to_f32()))
                }
                #[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
                Dtype::F64 => values.extend(chunks(bytes).map(|b| f64::from_le_bytes(b) as f32)),
                Dtype::F32 => values.extend(chunks(bytes).map(f32::from_le_bytes)),
            }
        }
        Ok(())
    }
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
        let mut reader = bytes.as_slice();
        let read = Numbers::new(&mut reader, Dtype::BF16).read(10);
        assert_eq!(read.unwrap(), numbers);
        let (mut reader, mut blocks) = (bytes.as_slice(), Vec::new());
        let mut keep = |block: &[f32]| blocks.push(block.to_vec());
        let lent = Numbers::new(&mut reader, Dtype::BF16).lend_blocks(10, 4, &mut keep);
        lent.unwrap();
        assert_eq!(blocks, [&numbers[..4], &numbers[4..8], &numbers[8..]]);
    }

    #[test]
    fn what_ends_early_is_an_error() {
        let bytes = [0; 30];
        let mut lent = 0;
        let mut reader = bytes.as_slice();
        let mut count = |block: &[f32]| lent += block.len();
        let read = Numbers::new(&mut reader, Dtype::F32).lend_blocks(8, 4, &mut count);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(lent, 4);
        let mut reader = bytes.as_slice();
        assert!(Numbers::new(&mut reader, Dtype::F32).read(8).is_err());
    }
}
