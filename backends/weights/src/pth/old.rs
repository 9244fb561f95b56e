//! The places of tensors in checkpoints that PyTorch wrote before version 1.6.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use super::MAX_PICKLE;
use crate::pickle::{self, Old, tensor::TensorInfo};

/// The first bytes of such a file: the pickle of the number 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 14] = [
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];

/// Returns true when a file begins as such a checkpoint does. It is at its beginning afterwards.
pub(super) fn is_old(mut file: &File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    file.rewind()?;
    Ok(first == MAGIC)
}

/// The tensors of a checkpoint by their names, and the bytes of its storages by theirs.
type Parts = (BTreeMap<String, TensorInfo>, BTreeMap<String, Range<u64>>);

/// Reads the descriptions of tensors, and finds the bytes of each storage: behind the number of its numbers, in the order in which
/// they are listed.
pub(super) fn read(mut file: &File, length: u64) -> Result<Parts, String> {
    let mut pickles = Vec::new();
    let taken = file.take(MAX_PICKLE).read_to_end(&mut pickles);
    taken.map_err(|e| e.to_string())?;
    let Old {
        tensors,
        storages,
        length: mut at,
    } = pickle::old(&pickles)?;
    let mut places = BTreeMap::new();
    for (name, bytes) in storages {
        let mut n = [0; 8];
        file.seek(SeekFrom::Start(at as u64))
            .and_then(|_| file.read_exact(&mut n))
            .map_err(|_| format!("storage {name} is cut off"))?;
        let start = at as u64 + 8;
        let end = u64::from_le_bytes(n)
            .checked_mul(bytes as u64)
            .and_then(|bytes| bytes.checked_add(start))
            .filter(|end| *end <= length)
            .ok_or_else(|| format!("storage {name} is cut off"))?;
        places.insert(name, start..end);
        at = usize::try_from(end).map_err(|e| e.to_string())?;
    }
    Ok((tensors, places))
}

#[cfg(test)]
mod tests {
    use crate::pth::PthFile;

    /// `torch.save({"w": torch.tensor([[1., 2.], [3., 4.]]).t(), "ids": torch.arange(3)}, f, _use_new_zipfile_serialization=False)`
    /// of PyTorch 2.15.
    const SAVED: &[u8] = include_bytes!("../../../../tests/fixtures/old_checkpoint.bin");

    #[test]
    fn an_old_checkpoint_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SAVED).unwrap();
        let opened = PthFile::open(file.path()).unwrap();
        assert_eq!(opened.names().collect::<Vec<_>>(), ["w"]);
        assert_eq!(opened.read("w").unwrap(), [1.0, 3.0, 2.0, 4.0]);
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_or_other_numbers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for end in 0..SAVED.len() {
            std::fs::write(file.path(), &SAVED[..end]).unwrap();
            assert!(PthFile::open(file.path()).is_err(), "{end}");
        }
        for i in 0..SAVED.len() {
            let mut changed = SAVED.to_vec();
            changed[i] ^= 0x41;
            std::fs::write(file.path(), &changed).unwrap();
            // No panic: old checkpoints have no checksum.
            if let Ok(opened) = PthFile::open(file.path()) {
                drop(opened.read("w"));
            }
        }
    }
}
