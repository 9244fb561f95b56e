//! The identity of a model's vectors.

use std::{io, path::Path, time::UNIX_EPOCH};

use embedgate_core::{BackendInfo, Pooling};

/// Files up to this size are hashed whole; of larger ones the length and the time of change stand for the content, since
/// reading gigabytes again would double the time to load.
const HASHED_WHOLE: u64 = 16 << 20;

/// Hashes what a model's vectors depend on: its folder and the files in it (tokenizer, configuration, weights), the
/// backend and its precision, the pooling, the longest sequence.
///
/// The folder's own path is hashed too: two folders may hold large files of one name, length and time. So a fingerprint
/// identifies vectors within one process, which is how long the cache lives; it is no name for use beyond that.
///
/// # Errors
/// When the folder cannot be read.
pub fn fingerprint(
    folder: &Path,
    file: Option<&Path>,
    info: &BackendInfo,
    pooling: Pooling,
) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new_derive_key("embedgate 2026-11 model fingerprint");
    field(&mut hasher, info.backend.as_bytes());
    field(&mut hasher, info.precision.to_string().as_bytes());
    field(&mut hasher, format!("{pooling:?}").as_bytes());
    field(
        &mut hasher,
        &(info.max_sequence_tokens as u64).to_le_bytes(),
    );
    for path in std::iter::once(folder).chain(file) {
        field(
            &mut hasher,
            path.canonicalize()?.as_os_str().as_encoded_bytes(),
        );
    }
    let mut files = Vec::new();
    for sub in ["", "1_Pooling", "onnx"] {
        let Ok(entries) = folder.join(sub).read_dir() else {
            continue;
        };
        for entry in entries {
            files.push(entry?.path());
        }
    }
    files.extend(file.map(Path::to_owned));
    files.retain(|path| path.is_file());
    files.sort();
    for path in files {
        hash_file(&mut hasher, &path)?;
    }
    Ok(hasher.finalize())
}

fn hash_file(hasher: &mut blake3::Hasher, path: &Path) -> io::Result<()> {
    field(
        hasher,
        path.file_name().unwrap_or_default().as_encoded_bytes(),
    );
    let metadata = path.metadata()?;
    if metadata.len() <= HASHED_WHOLE {
        field(hasher, &std::fs::read(path)?);
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
