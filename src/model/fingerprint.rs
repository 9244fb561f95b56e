//! The identity of a model's vectors.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use embedgate_core::Pooling;

use super::resolved::ResolvedBackend;

/// Files up to this size are hashed whole in any case.
const HASHED_WHOLE: u64 = 16 << 20;
/// Blocks that are hashed of each larger file, where no more than a warning depends on it. The next constant is the
/// size of a block in bytes.
const SAMPLES: u64 = 64;
const SAMPLE: usize = 64 << 10;

/// The depth to which files are read, by the scope in which an identity has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FingerprintDepth {
    /// Within this process: of large files the length and the time of change stand for the content, and the folder's own
    /// path counts, since two folders may hold large files of one name, length and time.
    WithinProcess,
    /// For ever and anywhere: every byte counts, and the path does not.
    Anywhere,
}

/// The facts from which a model's identity is found.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The model's folder, and the folders of its encoder and modules.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) backend: ResolvedBackend,
    pub(crate) pooling: Pooling,
    pub(crate) max_tokens: usize,
    /// The model of those that the folder holds, in words; empty where it holds one alone.
    pub(crate) variant: String,
    /// The card, as the load found it: one that is lost cannot be asked again.
    pub(crate) runs_on: String,
}

impl Identity {
    /// The identity as it is now.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn at(&self, depth: FingerprintDepth) -> io::Result<blake3::Hash> {
        fingerprint(self, depth)
    }

    /// The model's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folders.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Makes the identity of a model without files, for tests.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self {
            folders: vec![PathBuf::new()],
            backend: ResolvedBackend::of_nothing(),
            pooling: Pooling::CLS,
            max_tokens: 0,
            variant: String::new(),
            runs_on: String::new(),
        }
    }
}

/// Hashes what models share whose vectors can be compared, on any device and in any precision: the folders' own files, and `facts`, such
/// as the pooling and the prompt that is put in front of every text. Of large files so many bytes count, from all over them, that others
/// can hardly have the same.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn vector_space(folders: &[PathBuf], facts: &[&str]) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new_derive_key("embedgate 2026-11 vector space 1");
    for fact in facts {
        field(&mut hasher, fact.as_bytes());
    }
    let mut files = Vec::new();
    for folder in folders {
        let mut of_folder = Vec::new();
        for entry in folder.read_dir()? {
            of_folder.push(entry?.path());
        }
        of_folder.retain(|path| path.is_file() && shapes_vectors(path));
        of_folder.sort();
        files.extend(of_folder);
    }
    for path in files {
        field(
            &mut hasher,
            path.file_name().unwrap_or_default().as_encoded_bytes(),
        );
        let length = path.metadata()?.len();
        field(&mut hasher, &length.to_le_bytes());
        if length <= HASHED_WHOLE {
            hasher.update_reader(File::open(path)?)?;
        } else {
            hash_samples(&mut hasher, &path, length)?;
        }
    }
    Ok(hasher.finalize())
}

/// Returns true when a file's content shapes the vectors, by its name: a record of a fetch and texts for people do not.
fn shapes_vectors(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_weights = ["safetensors", "bin", "pt", "onnx", "onnx_data"]
        .iter()
        .any(|ending| name.ends_with(&format!(".{ending}")));
    let of_vocabulary = [
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "vocab.json",
    ];
    let is_vocabulary = of_vocabulary.contains(&&*name) || name.ends_with(".model");
    let is_read = !path.with_file_name("tokenizer.json").exists();
    is_weights
        || (is_vocabulary && is_read)
        || name.starts_with("tokenizer")
        || name == "vocab.txt"
        || name == "config.json"
}

fn hash_samples(hasher: &mut blake3::Hasher, path: &Path, length: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let mut block = vec![0; SAMPLE];
    let last = length - SAMPLE as u64;
    for i in 0..SAMPLES {
        file.seek(SeekFrom::Start(last / (SAMPLES - 1) * i))?;
        file.read_exact(&mut block)?;
        hasher.update(&block);
    }
    Ok(())
}

/// Hashes what a model's vectors depend on: the files of its folder that its backend reads (tokenizer, configuration,
/// weights), the backend and its version, the precision, the pooling and the longest sequence; and `runs_on`, the card.
///
/// # Errors
/// When the folder cannot be read.
fn fingerprint(of: &Identity, depth: FingerprintDepth) -> io::Result<blake3::Hash> {
    let Identity {
        folders,
        backend,
        pooling,
        max_tokens,
        variant,
        runs_on,
    } = of;
    let mut hasher = blake3::Hasher::new_derive_key("embedgate 2026-11 model fingerprint 4");
    let facts = format!(
        "{} {:?} {:?} {:?} {pooling:?} {max_tokens}",
        env!("CARGO_PKG_VERSION"),
        backend.engine.kind(),
        backend.device,
        backend.precision,
    );
    field(&mut hasher, facts.as_bytes());
    if !variant.is_empty() {
        field(&mut hasher, variant.as_bytes());
    }
    if !runs_on.is_empty() {
        field(&mut hasher, runs_on.as_bytes());
    }
    let file = backend.file.as_deref();
    if depth == FingerprintDepth::WithinProcess {
        for path in folders.iter().map(PathBuf::as_path).chain(file) {
            let path = path.canonicalize()?;
            field(&mut hasher, path.as_os_str().as_encoded_bytes());
        }
    }
    let mut files = Vec::new();
    let top = of.folder();
    let of_modules = folders.iter().skip(1).cloned();
    let all = ["", "1_Pooling", "onnx"].map(|within| top.join(within));
    for folder in all.into_iter().chain(of_modules) {
        let Ok(entries) = folder.read_dir() else {
            continue;
        };
        for entry in entries {
            files.push(entry?.path());
        }
    }
    if let Some(file) = file {
        // Its weights may lie beside it, under any name.
        let beside = file.parent().unwrap_or(Path::new("."));
        for entry in beside.read_dir()? {
            files.push(entry?.path());
        }
    }
    let reads = backend.engine.reads(top, backend);
    // Modules behind the encoder run from their own weights, whatever runs the encoder.
    let is_of_module = |path: &Path| {
        let is_weights = ["safetensors", "bin"]
            .iter()
            .any(|end| path.extension().is_some_and(|e| e == *end));
        is_weights
            && folders
                .iter()
                .skip(1)
                .any(|folder| path.parent() == Some(folder))
    };
    files.retain(|path| path.is_file() && (is_read(path, &reads) || is_of_module(path)));
    files.sort();
    files.dedup();
    for path in files {
        hash_file(&mut hasher, &path, depth)?;
    }
    Ok(hasher.finalize())
}

/// Returns true when the backend reads a file. Hidden files and pages of a hub are no part of a model.
fn is_read(path: &Path, reads: impl Fn(&str) -> bool) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !name.ends_with(".md") && reads(&name)
}

fn hash_file(hasher: &mut blake3::Hasher, path: &Path, depth: FingerprintDepth) -> io::Result<()> {
    field(
        hasher,
        path.file_name().unwrap_or_default().as_encoded_bytes(),
    );
    let metadata = path.metadata()?;
    if metadata.len() <= HASHED_WHOLE || depth == FingerprintDepth::Anywhere {
        field(hasher, &metadata.len().to_le_bytes());
        hasher.update_reader(File::open(path)?)?;
        return Ok(());
    }
    let changed = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    field(hasher, &metadata.len().to_le_bytes());
    field(hasher, &changed.as_nanos().to_le_bytes());
    Ok(())
}

fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "onnx")]
    use embedgate_config::BackendType;
    #[cfg(feature = "onnx")]
    use embedgate_core::Precision;

    use super::*;
    #[cfg(feature = "onnx")]
    use crate::model::engine;

    fn identity(path: &Path, backend: ResolvedBackend) -> Identity {
        Identity {
            folders: vec![path.to_owned()],
            backend,
            max_tokens: 512,
            ..Identity::of_nothing()
        }
    }

    #[test]
    fn a_copy_is_the_same_model_beyond_this_process_and_one_changed_byte_is_another() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bge-m3");
        let copy = tempfile::tempdir().unwrap();
        for folder in ["", "1_Pooling"] {
            std::fs::create_dir_all(copy.path().join(folder)).unwrap();
            for entry in fixture.join(folder).read_dir().unwrap() {
                let path = entry.unwrap().path();
                let to = copy.path().join(path.strip_prefix(&fixture).unwrap());
                if path.is_file() {
                    std::fs::copy(&path, to).unwrap();
                }
            }
        }
        let of = |path: &Path, depth| {
            let backend = ResolvedBackend::of_nothing();
            identity(path, backend).at(depth).unwrap()
        };
        assert_eq!(
            of(&fixture, FingerprintDepth::Anywhere),
            of(copy.path(), FingerprintDepth::Anywhere)
        );
        assert_ne!(
            of(&fixture, FingerprintDepth::WithinProcess),
            of(copy.path(), FingerprintDepth::WithinProcess)
        );
        let before = of(copy.path(), FingerprintDepth::Anywhere);
        let file = copy.path().join("config.json");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.push(b' ');
        std::fs::write(&file, bytes).unwrap();
        assert_ne!(of(copy.path(), FingerprintDepth::Anywhere), before);
    }

    #[cfg(feature = "onnx")]
    #[test]
    fn an_onnx_model_is_the_same_whatever_variant_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("onnx")).unwrap();
        let of = |precision| {
            let backend = ResolvedBackend {
                engine: engine::of(BackendType::Onnx).unwrap(),
                precision,
                ..ResolvedBackend::of_nothing()
            };
            let identity = identity(folder.path(), backend);
            identity.at(FingerprintDepth::Anywhere).unwrap()
        };
        let write = |name: &str, text| std::fs::write(folder.path().join("onnx").join(name), text);
        write("model.onnx", "a").unwrap();
        let before = of(Precision::F32);
        write("model_int8.onnx", "b").unwrap();
        write("model_int8.onnx_data", "c").unwrap();
        write("model_gpu.onnx", "f").unwrap();
        write("model_gpu_f16.onnx_data", "g").unwrap();
        assert_eq!(of(Precision::F32), before);
        let bytes = of(Precision::Int8);
        write("model.onnx", "d").unwrap();
        assert_eq!(of(Precision::Int8), bytes);
        assert_ne!(of(Precision::F32), before);
        write("model_int8.onnx_data", "e").unwrap();
        assert_ne!(of(Precision::Int8), bytes);
    }
}
