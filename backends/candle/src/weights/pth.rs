//! PyTorch checkpoints: a zip of one pickle, which describes the tensors, and of their bytes.
//!
//! candle's restricted unpickler reads them: it makes tensors and runs no code. The zip's checksums catch flipped bits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use candle_core::{Tensor, pickle::PthTensors};

use super::{WeightsError, is_supported, to_f32};

pub(super) struct PthFile {
    path: PathBuf,
    tensors: PthTensors,
}

impl PthFile {
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let file_length = std::fs::metadata(path)
            .map_err(|e| WeightsError::damaged(path, e))?
            .len();
        let tensors = guarded(path, || PthTensors::new(path, None))?;
        for (name, info) in tensors.tensor_infos() {
            let elements = info
                .layout
                .dims()
                .iter()
                .try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64));
            let bytes = elements.and_then(|n| n.checked_mul(info.dtype.size_in_bytes() as u64));
            // Tensors are stored uncompressed, so none is larger than the file.
            if bytes.is_none_or(|bytes| bytes > file_length) {
                let problem = format!(
                    "tensor \"{name}\" of shape {:?} is larger than the file",
                    info.layout.dims()
                );
                return Err(WeightsError::damaged(path, problem));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            tensors,
        })
    }

    /// Checkpoints of older transformers also hold integer buffers, such as `position_ids`, which are left out.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors
            .tensor_infos()
            .iter()
            .filter(|(_, info)| is_supported(info.dtype))
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let info = self
            .tensors
            .tensor_infos()
            .get(name)
            .filter(|info| is_supported(info.dtype))?;
        Some(info.layout.dims().to_vec())
    }

    pub(super) fn read(&self, name: &str) -> Result<Tensor, WeightsError> {
        let tensor = guarded(&self.path, || self.tensors.get(name))?;
        let missing =
            || WeightsError::damaged(&self.path, format!("tensor \"{name}\" is not in the file"));
        to_f32(&tensor.ok_or_else(missing)?, &self.path)
    }
}

/// candle's unpickler panics on some damaged files: that is an error of the file, not of the program.
fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> candle_core::Result<T>,
) -> Result<T, WeightsError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| {
            WeightsError::damaged(path, format!("not a readable PyTorch checkpoint: {e}"))
        }),
        Err(_) => Err(WeightsError::damaged(
            path,
            "not a readable PyTorch checkpoint: its pickle is damaged",
        )),
    }
}
