//! PyTorch checkpoints: a zip of one pickle, which describes the tensors, and of their bytes; before version 1.6, pickles and the
//! bytes behind each other in one file.
//!
//! Each entry of a zip is read to its end, which is where the zip's checksum catches flipped bits. Old checkpoints have none.

mod old;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use embedgate_core::impostor;
use zip::ZipArchive;

use crate::{
    WeightsError,
    numbers::Numbers,
    pickle::{self, tensor::TensorInfo},
};

/// The pickle of a checkpoint describes tensors in about 100 bytes each: even thousands stay far below.
const MAX_PICKLE: u64 = 1 << 20;

/// A PyTorch checkpoint that is open.
pub(super) struct PthFile {
    path: PathBuf,
    /// By name; only those of a number format that weights come in. Checkpoints of older transformers also hold integer
    /// buffers, such as `position_ids`.
    tensors: BTreeMap<String, TensorInfo>,
    storages: Storages,
}

/// The numbers of tensors.
enum Storages {
    /// Entries of a zip, in this folder of it.
    Zip(String, Mutex<ZipArchive<BufReader<File>>>),
    /// Parts of the file itself, in bytes.
    Old(BTreeMap<String, Range<u64>>),
}

impl PthFile {
    /// Opens a checkpoint; reads its pickle, no tensor yet.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let damaged = |problem: String| WeightsError::damaged(path, problem);
        if let Some(problem) = impostor(path) {
            return Err(damaged(problem.into()));
        }
        let metadata = std::fs::metadata(path).map_err(|e| damaged(e.to_string()))?;
        let file = File::open(path).map_err(|e| damaged(e.to_string()))?;
        let unreadable = |e| damaged(format!("not a readable PyTorch checkpoint: {e}"));
        let (tensors, storages) = match old::is_old(&file).map_err(|e| damaged(e.to_string()))? {
            true => {
                let (tensors, places) = old::read(&file, metadata.len()).map_err(unreadable)?;
                (tensors, Storages::Old(places))
            }
            false => {
                let mut archive =
                    ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(e.to_string()))?;
                let (folder, bytes) = read_pickle(&mut archive).map_err(damaged)?;
                let tensors = pickle::tensors(&bytes).map_err(unreadable)?;
                (tensors, Storages::Zip(folder, Mutex::new(archive)))
            }
        };
        for (name, info) in &tensors {
            let bytes = info
                .elements()
                .and_then(|n| n.checked_mul(info.dtype.bytes()));
            // Tensors are stored uncompressed, so none is larger than the file.
            if bytes.is_none_or(|bytes| bytes as u64 > metadata.len()) {
                let shape = &info.shape;
                let problem =
                    format!("tensor \"{name}\" of shape {shape:?} is larger than the file");
                return Err(damaged(problem));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            tensors,
            storages,
        })
    }

    /// Names of its tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor; none where the file has no such.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|info| info.shape.clone())
    }

    /// Reads a tensor, as f32.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let failed = |e: io::Error| WeightsError::tensor(&self.path, name, e);
        let info = self.info(name)?;
        if info.is_row_major() {
            let read = |entry: &mut dyn Read, n| Numbers::new(entry, info.dtype).read(n);
            return self.with_entry(info, read).map_err(failed);
        }
        if !info.is_column_major() {
            let problem = format!(
                "has strides {:?}, supported are whole tensors",
                info.strides
            );
            return Err(WeightsError::tensor(&self.path, name, problem));
        }
        let read = |entry: &mut dyn Read, n| Numbers::new(entry, info.dtype).read(n);
        let values = self.with_entry(info, read).map_err(failed)?;
        Ok(row_major(&values, info))
    }

    /// Lends the numbers of a tensor in row-major order, `block` at a time; fewer are in the last one.
    pub(super) fn read_blocks(
        &self,
        name: &str,
        block: usize,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), WeightsError> {
        let info = self.info(name)?;
        if info.is_row_major() {
            let lend = |entry: &mut dyn Read, n| {
                Numbers::new(entry, info.dtype).lend_blocks(n, block, each)
            };
            return self
                .with_entry(info, lend)
                .map_err(|e| WeightsError::tensor(&self.path, name, e));
        }
        // Its rows do not lie one after the other.
        self.read(name)?.chunks(block).for_each(each);
        Ok(())
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        self.tensors
            .get(name)
            .ok_or_else(|| WeightsError::tensor(&self.path, name, "is not in the file"))
    }

    /// Lends a tensor's bytes and the number of its elements to `read`, and reads the rest of their entry for its checksum.
    fn with_entry<T>(
        &self,
        info: &TensorInfo,
        read: impl FnOnce(&mut dyn Read, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        let n = info.elements().expect("the file was opened with elements");
        let before = (info.offset as u64).saturating_mul(info.dtype.bytes() as u64);
        let (folder, archive) = match &self.storages {
            Storages::Zip(folder, archive) => (folder, archive),
            Storages::Old(places) => {
                let missing = || io::Error::other(format!("storage {} is missing", info.storage));
                let place = places.get(&info.storage).ok_or_else(missing)?;
                let first = place.start.saturating_add(before).min(place.end);
                let mut file = File::open(&self.path)?;
                file.seek(SeekFrom::Start(first))?;
                return read(&mut BufReader::new(file).take(place.end - first), n);
            }
        };
        let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = archive.by_name(&format!("{folder}/data/{}", info.storage))?;
        io::copy(&mut entry.by_ref().take(before), &mut io::sink())?;
        let read = read(&mut entry, n)?;
        io::copy(&mut entry, &mut io::sink())?;
        Ok(read)
    }
}

/// Puts elements that lie column by column into the order of rows.
fn row_major(values: &[f32], info: &TensorInfo) -> Vec<f32> {
    let mut index = vec![0; info.shape.len()];
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let place: usize = index.iter().zip(&info.strides).map(|(i, by)| i * by).sum();
        ordered.push(values[place]);
        for (i, n) in index.iter_mut().zip(&info.shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    ordered
}

/// Reads the archive's one pickle to its end, where its checksum is; returns the folder that it lies in, too.
fn read_pickle(archive: &mut ZipArchive<BufReader<File>>) -> Result<(String, Vec<u8>), String> {
    let mut found = None;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| e.to_string())?;
        let name = entry.name().map_err(|e| e.to_string())?.into_owned();
        let Some(folder) = name.strip_suffix("/data.pkl") else {
            continue;
        };
        if entry.size() > MAX_PICKLE {
            return Err(format!(
                "{name} has {} bytes, a checkpoint's has at most {MAX_PICKLE}",
                entry.size()
            ));
        }
        let mut bytes = Vec::new();
        let read = entry.by_ref().take(MAX_PICKLE + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("{name}: {e}"))?;
        if found.replace((folder.to_owned(), bytes)).is_some() {
            return Err("not a readable PyTorch checkpoint: it holds several pickles".into());
        }
    }
    found.ok_or_else(|| "not a readable PyTorch checkpoint: it holds no data.pkl".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn columns_become_rows() {
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: vec![2, 3],
            strides: vec![1, 2],
            offset: 0,
            storage: "0".into(),
        };
        let columns = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        assert_eq!(row_major(&columns, &info), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
