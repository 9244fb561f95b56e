//! The files of a model folder that hold weights, whatever their format.

use std::path::Path;

use crate::{
    WeightsError,
    pth::PthFile,
    safetensors::{self, SafetensorsFile},
};

/// A file of weights.
pub(crate) enum File {
    Safetensors(SafetensorsFile),
    Pth(PthFile),
}

impl File {
    /// Names of its tensors.
    pub(crate) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Safetensors(file) => Box::new(file.names()),
            Self::Pth(file) => Box::new(file.names()),
        }
    }

    /// Shape of a tensor; none where the file has no such.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Safetensors(file) => file.shape(name),
            Self::Pth(file) => file.shape(name),
        }
    }

    /// The format of a tensor that is not read, where the file says it.
    pub(crate) fn other_format(&self, name: &str) -> Option<&str> {
        match self {
            Self::Safetensors(file) => file.other_format(name),
            Self::Pth(_) => None,
        }
    }

    /// Reads a tensor, as f32.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        match self {
            Self::Safetensors(file) => file.read(name),
            Self::Pth(file) => file.read(name),
        }
    }

    /// Lends the numbers of a tensor in row-major order, `block` at a time; fewer are in the last one.
    pub(crate) fn read_blocks(
        &self,
        name: &str,
        block: usize,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), WeightsError> {
        match self {
            Self::Safetensors(file) => file.read_blocks(name, block, each),
            Self::Pth(file) => file.read_blocks(name, block, each),
        }
    }
}

/// Opens the files of a folder: the first format that is there.
pub(crate) fn open_files(folder: &Path) -> Result<Vec<File>, WeightsError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![File::Safetensors(SafetensorsFile::open(&single)?)]);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        let shards = safetensors::shards(&index)?;
        return shards
            .iter()
            .map(|shard| SafetensorsFile::open(shard).map(File::Safetensors))
            .collect();
    }
    let pickled = folder.join("pytorch_model.bin");
    if pickled.exists() {
        return Ok(vec![File::Pth(PthFile::open(&pickled)?)]);
    }
    let index = folder.join("pytorch_model.bin.index.json");
    if index.exists() {
        let shards = safetensors::shards(&index)?;
        return shards
            .iter()
            .map(|shard| PthFile::open(shard).map(File::Pth))
            .collect();
    }
    Err(WeightsError::NoWeights(folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_in_parts_is_found_by_its_index() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let folder = tempfile::tempdir().unwrap();
        let part = "pytorch_model-00001-of-00001.bin";
        let whole = fixtures.join("tiny-bert-reranker/pytorch_model.bin");
        std::fs::copy(&whole, folder.path().join(part)).unwrap();
        let name = "bert.embeddings.word_embeddings.weight";
        let index = format!("{{\"weight_map\": {{\"{name}\": \"{part}\"}}}}");
        std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
        let files = open_files(folder.path()).unwrap();
        assert_eq!(files.len(), 1);
        let expected = PthFile::open(&whole).unwrap().read(name).unwrap();
        assert_eq!(files[0].read(name).unwrap(), expected);
    }

    #[test]
    fn a_tensor_in_a_format_that_is_not_read_is_said_to_be_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"words": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "layer": {"dtype": "F8_E4M3", "shape": [1],
            "data_offsets": [4, 5]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 5]);
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let weights = crate::Weights::open(folder.path(), "words").unwrap();
        let error = weights.values("layer", &[1]).unwrap_err().to_string();
        assert!(error.contains("\"layer\" is in F8_E4M3"), "{error}");
        let missing = weights.values("other", &[1]).unwrap_err().to_string();
        assert!(missing.contains("\"other\" is missing"), "{missing}");
    }
}
