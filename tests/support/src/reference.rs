//! Files of vectors that the reference libraries made.

use safetensors::SafeTensors;

use crate::fixtures;

/// A file of reference vectors.
pub struct Reference(Vec<u8>);

impl Reference {
    /// Reads one of the fixtures.
    #[must_use]
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(fixtures().join(name)).unwrap())
    }

    /// A tensor's numbers in f32.
    #[must_use]
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name).into_iter();
        bytes.map(f32::from_le_bytes).collect()
    }

    /// A tensor's whole numbers.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<usize> {
        let bytes = self.bytes(name).into_iter();
        bytes
            .map(|b| usize::try_from(i64::from_le_bytes(b)).unwrap())
            .collect()
    }

    /// A tensor's rows in f32.
    #[must_use]
    pub fn rows(&self, name: &str, width: usize) -> Vec<Vec<f32>> {
        let numbers = self.floats(name);
        numbers.chunks(width).map(<[f32]>::to_vec).collect()
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        tensor.data().as_chunks::<N>().0.to_vec()
    }
}
