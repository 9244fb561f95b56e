//! PyTorch checkpoints: a zip of one pickle, which describes the tensors, and of their bytes.
//!
//! candle's restricted unpickler reads the pickle: it describes tensors and runs no code. Their bytes are read here, to
//! the end of each entry, which is where the zip's checksum catches flipped bits; candle's own reader stops before it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use candle_core::{
    Device, Tensor,
    pickle::{TensorInfo, read_pth_tensor_info},
};
use zip::ZipArchive;

use super::{
    WeightsError,
    numbers::{Numbers, is_supported},
};

pub(super) struct PthFile {
    path: PathBuf,
    /// By name; only those of a number format that weights come in. Checkpoints of older transformers also hold integer
    /// buffers, such as `position_ids`.
    tensors: BTreeMap<String, TensorInfo>,
    archive: Mutex<ZipArchive<BufReader<File>>>,
}

impl PthFile {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let file_length = std::fs::metadata(path)
            .map_err(|e| WeightsError::damaged(path, e))?
            .len();
        let file = File::open(path).map_err(|e| WeightsError::damaged(path, e))?;
        let mut archive =
            ZipArchive::new(BufReader::new(file)).map_err(|e| WeightsError::damaged(path, e))?;
        check_pickles(&mut archive).map_err(|e| WeightsError::damaged(path, e))?;
        let infos = guarded(path, || read_pth_tensor_info(path, false, None))?;
        let mut tensors = BTreeMap::new();
        for info in infos.into_iter().filter(|info| is_supported(info.dtype)) {
            let elements = info
                .layout
                .dims()
                .iter()
                .try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64));
            let bytes = elements.and_then(|n| n.checked_mul(info.dtype.size_in_bytes() as u64));
            // Tensors are stored uncompressed, so none is larger than the file.
            if bytes.is_none_or(|bytes| bytes > file_length) {
                let problem = format!(
                    "tensor \"{}\" of shape {:?} is larger than the file",
                    info.name,
                    info.layout.dims()
                );
                return Err(WeightsError::damaged(path, problem));
            }
            tensors.insert(info.name.clone(), info);
        }
        Ok(Self {
            path: path.to_owned(),
            tensors,
            archive: Mutex::new(archive),
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors
            .get(name)
            .map(|info| info.layout.dims().to_vec())
    }

    pub(super) fn read(&self, name: &str) -> Result<Tensor, WeightsError> {
        let info = self.info(name)?;
        let n = info.layout.shape().elem_count();
        let values = self
            .with_entry(info, |entry| Numbers::new(entry, info.dtype).read(n))
            .map_err(|e| WeightsError::tensor(&self.path, name, e))?;
        tensor(values, info).map_err(|e| WeightsError::tensor(&self.path, name, e))
    }

    pub(super) fn read_blocks(
        &self,
        name: &str,
        block: usize,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), WeightsError> {
        let info = self.info(name)?;
        let n = info.layout.shape().elem_count();
        if info.layout.is_contiguous() {
            return self
                .with_entry(info, |entry| {
                    Numbers::new(entry, info.dtype).lend_blocks(n, block, each)
                })
                .map_err(|e| WeightsError::tensor(&self.path, name, e));
        }
        // Its rows do not lie one after the other.
        let values = self.read(name)?.flatten_all().and_then(|all| all.to_vec1());
        let values: Vec<f32> = values.map_err(|e| WeightsError::tensor(&self.path, name, e))?;
        values.chunks(block).for_each(each);
        Ok(())
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        self.tensors
            .get(name)
            .ok_or_else(|| WeightsError::tensor(&self.path, name, "is not in the file"))
    }

    /// Lends a tensor's bytes to `read`, and reads the rest of their entry for its checksum.
    fn with_entry<T>(
        &self,
        info: &TensorInfo,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = archive.by_name(&info.path)?;
        io::copy(
            &mut entry.by_ref().take(info.layout.start_offset() as u64),
            &mut io::sink(),
        )?;
        let read = read(&mut entry)?;
        io::copy(&mut entry, &mut io::sink())?;
        Ok(read)
    }
}

/// Weights are stored row by row, or column by column where a transposed one was saved.
fn tensor(values: Vec<f32>, info: &TensorInfo) -> candle_core::Result<Tensor> {
    let dims = info.layout.dims();
    if info.layout.is_contiguous() {
        return Tensor::from_vec(values, dims, &Device::Cpu);
    }
    if info.layout.is_fortran_contiguous() {
        let reversed: Vec<usize> = dims.iter().rev().copied().collect();
        let axes: Vec<usize> = (0..dims.len()).rev().collect();
        return Tensor::from_vec(values, reversed, &Device::Cpu)?
            .permute(axes)?
            .contiguous();
    }
    candle_core::bail!(
        "has strides {:?}, supported are whole tensors",
        info.layout.stride()
    )
}

/// The pickle of a checkpoint describes tensors in about 100 bytes each: even thousands stay far below.
const MAX_PICKLE: u64 = 1 << 20;
/// candle's unpickler recurses into nested values, at most one level a byte.
const STACK: usize = 512 << 20;

/// Reads each pickle to its end, where its checksum is, which candle does not.
fn check_pickles(archive: &mut ZipArchive<BufReader<File>>) -> Result<(), String> {
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| e.to_string())?;
        let name = entry.name().map_err(|e| e.to_string())?.into_owned();
        if !name.ends_with(".pkl") {
            continue;
        }
        if entry.size() > MAX_PICKLE {
            return Err(format!(
                "{name} has {} bytes, a checkpoint's has at most {MAX_PICKLE}",
                entry.size()
            ));
        }
        io::copy(&mut entry.by_ref().take(MAX_PICKLE + 1), &mut io::sink())
            .map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

/// candle's unpickler panics on some damaged files: that is an error of the file, not of the program. It runs on a thread
/// with room for deeply nested values.
fn guarded<T: Send>(
    path: &Path,
    read: impl FnOnce() -> candle_core::Result<T> + Send,
) -> Result<T, WeightsError> {
    let damaged = |problem: String| {
        WeightsError::damaged(
            path,
            format!("not a readable PyTorch checkpoint: {problem}"),
        )
    };
    let caught = std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("unpickle".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(read)))
            .map_err(|e| damaged(e.to_string()))?;
        reading
            .join()
            .and_then(|caught| caught)
            .map_err(|_| damaged("its pickle is damaged".into()))
    })?;
    caught.map_err(|e| damaged(e.to_string()))
}
