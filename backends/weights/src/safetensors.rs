//! Safetensors files: a JSON header of names, formats, shapes and byte ranges, then the bytes.
//!
//! Format: <https://github.com/huggingface/safetensors>. Read tensor by tensor with plain reads, since a mapped file
//! stays in the process's resident memory beside the copy that a backend makes.
//!
//! The header is read here, too: the crate `safetensors` 0.8 wants the bytes of the whole file with it, refuses a file for any tensor
//! in a format that it does not know, and most of its errors name neither the tensor nor its numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use embedgate_core::impostor;
use serde::Deserialize;

use crate::{WeightsError, dtype::Dtype, numbers::Numbers};

/// The format's own limit on the length of its header.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
}

/// A safetensors file, with what its header says.
pub(super) struct SafetensorsFile {
    path: PathBuf,
    tensors: BTreeMap<String, Info>,
    /// The formats of tensors that are not read, by their names.
    others: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Opens a file; reads its header, no tensor yet.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let damaged = |problem: String| WeightsError::damaged(path, problem);
        if let Some(problem) = impostor(path) {
            return Err(damaged(problem.into()));
        }
        let mut file = File::open(path).map_err(|e| damaged(e.to_string()))?;
        let file_length = file.metadata().map_err(|e| damaged(e.to_string()))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .map_err(|_| damaged("shorter than a safetensors header".into()))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > file_length {
            return Err(damaged(format!(
                "header length {length} does not fit the file of {file_length} bytes"
            )));
        }
        let mut header = Vec::new();
        file.take(length)
            .read_to_end(&mut header)
            .map_err(|e| damaged(e.to_string()))?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|e| damaged(format!("header is not the expected JSON: {e}")))?;

        let (mut tensors, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (name, entry) in header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
        {
            let entry: Entry = serde_json::from_value(entry)
                .map_err(|e| damaged(format!("tensor \"{name}\" in the header: {e}")))?;
            let format = entry.dtype.clone();
            match info(&name, entry, 8 + length, file_length).map_err(damaged)? {
                Some(info) => drop(tensors.insert(name, info)),
                None => drop(others.insert(name, format)),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            tensors,
            others,
        })
    }

    /// The format of a tensor that is not read; none where the file has no such.
    pub(super) fn other_format(&self, name: &str) -> Option<&str> {
        self.others.get(name).map(String::as_str)
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
        let (mut file, info) = self.open_at(name)?;
        Numbers::new(&mut file, info.dtype)
            .read(info.shape.iter().product())
            .map_err(|e| WeightsError::tensor(&self.path, name, e))
    }

    /// Lends the numbers of a tensor in row-major order, `block` at a time; fewer are in the last one.
    pub(super) fn read_blocks(
        &self,
        name: &str,
        block: usize,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), WeightsError> {
        let (mut file, info) = self.open_at(name)?;
        Numbers::new(&mut file, info.dtype)
            .lend_blocks(info.shape.iter().product(), block, each)
            .map_err(|e| WeightsError::tensor(&self.path, name, e))
    }

    /// The file, at the first byte of a tensor.
    fn open_at(&self, name: &str) -> Result<(File, &Info), WeightsError> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| WeightsError::tensor(&self.path, name, "is not in the file"))?;
        let mut file =
            File::open(&self.path).map_err(|e| WeightsError::tensor(&self.path, name, e))?;
        file.seek(SeekFrom::Start(info.start))
            .map_err(|e| WeightsError::tensor(&self.path, name, e))?;
        Ok((file, info))
    }
}

/// Checks an entry against the file. None for formats that no weight of ours has, such as integer buffers.
fn info(
    name: &str,
    entry: Entry,
    data_start: u64,
    file_length: u64,
) -> Result<Option<Info>, String> {
    let dtype = match entry.dtype.as_str() {
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        "F64" => Dtype::F64,
        _ => return Ok(None),
    };
    let (start, end) = entry.data_offsets;
    let elements = entry
        .shape
        .iter()
        .try_fold(1_u64, |n, &dim| n.checked_mul(dim as u64));
    let bytes = elements.and_then(|n| n.checked_mul(dtype.bytes() as u64));
    if end < start || bytes != Some(end - start) {
        return Err(format!(
            "tensor \"{name}\" has shape {:?} but {start}..{end} as its bytes",
            entry.shape
        ));
    }
    if data_start
        .checked_add(end)
        .is_none_or(|last| last > file_length)
    {
        return Err(format!(
            "tensor \"{name}\" ends beyond the file of {file_length} bytes: the file is cut off"
        ));
    }
    Ok(Some(Info {
        dtype,
        shape: entry.shape,
        start: data_start + start,
    }))
}

/// The shard files that an index names, which must lie beside it.
pub(super) fn shards(index: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| WeightsError::damaged(index, e))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| WeightsError::damaged(index, e))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let folder = index.parent().unwrap_or(Path::new("."));
    let beside = |name: &String| {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(_)), None) => Ok(folder.join(name)),
            _ => Err(WeightsError::damaged(
                index,
                format!("shard \"{name}\" is not a file beside the index"),
            )),
        }
    };
    names.iter().map(beside).collect()
}
