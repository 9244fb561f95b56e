//! The forms in which a dense vector is written in JSON.

/// The form of a dense vector in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorText {
    /// An array of numbers, each of which round-trips to the same f32.
    Numbers,
    /// A string: little-endian f32 in padded standard base64.
    Base64,
}

impl VectorText {
    /// Appends a vector of finite numbers.
    pub fn write(self, vector: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::Numbers => serde_json::to_writer(out, vector)
                .expect("finite numbers into memory always succeed"),
            Self::Base64 => base64(vector, out),
        }
    }

    /// About how many bytes so many numbers take.
    #[must_use]
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Self::Numbers => numbers * 13 + 2,
            Self::Base64 => base64_simd::STANDARD.encoded_length(numbers * 4) + 2,
        }
    }
}

/// Numbers that are encoded at once: their bytes are a multiple of 3, so that only the last piece is padded.
const PIECE: usize = 768;

fn base64(vector: &[f32], out: &mut Vec<u8>) {
    let mut bytes = [0; PIECE * 4];
    out.push(b'"');
    for piece in vector.chunks(PIECE) {
        let bytes = &mut bytes[..size_of_val(piece)];
        for (four, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(piece) {
            *four = x.to_le_bytes();
        }
        base64_simd::STANDARD.encode_append(&*bytes, out);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_pieces_is_the_base64_of_the_whole() {
        for n in [1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5] {
            let vector: Vec<f32> = (0..n).map(|i| i as f32 * 0.37).collect();
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut out = Vec::new();
            VectorText::Base64.write(&vector, &mut out);
            let expected = format!("\"{}\"", base64_simd::STANDARD.encode_to_string(&bytes));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{n}");
        }
    }

    #[test]
    fn numbers_round_trip() {
        let vector = [0.1_f32, -1e-20, 3.402_823_5e38, 1.0 / 3.0, -0.0];
        let mut out = Vec::new();
        VectorText::Numbers.write(&vector, &mut out);
        let back: Vec<f32> = serde_json::from_slice(&out).unwrap();
        assert!(
            vector
                .iter()
                .zip(&back)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }
}
