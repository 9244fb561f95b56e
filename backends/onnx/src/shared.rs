//! Weights that sessions share.
//!
//! A session packs its weights for the processor, into memory of its own. Where several are to run one model, the first
//! keeps what it packed in files, and all map one copy of those: the system holds it once for this process. The files are
//! made again when the model, the library or the processor is another.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use embedgate_core::machine::cores;
use ort::session::builder::GraphOptimizationLevel;
use thiserror::Error;

use crate::{
    external,
    open::{OpenError, Opened, Opener, stamp},
};

/// The packed model's files, in a folder of their own.
const MODEL: &str = "model.onnx";
const DATA: &str = "model.onnx_data";

/// Tested, with weights of many sizes.
const OLDEST_THAT_SHARES: (u32, u32) = (1, 32);

/// Models whose weights could not be shared: it is not tried again for each replica, for it may have taken gigabytes.
static FAILED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The reasons why weights cannot be shared.
#[derive(Debug, Error)]
enum ShareError {
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("ONNX Runtime cannot write them: {0}")]
    Pack(#[source] ort::Error),
    /// The library wrote what is not whole, though it gave no error.
    #[error("{0}")]
    Written(String),
    #[error("ONNX Runtime cannot open them: {0}")]
    Open(#[source] OpenError),
    #[error("ONNX Runtime at {0} is not known to be of version 1.32 or newer, by its file's name")]
    Version(PathBuf),
}

impl Opener<'_> {
    /// A session that shares its weights with all others opened so, by files in `kept_in`. One with weights of its own
    /// where that cannot be, which the log says.
    pub(crate) fn open_shared(
        &self,
        model: &Path,
        data: &[PathBuf],
        kept_in: &Path,
    ) -> Result<Opened, OpenError> {
        let failed = || FAILED.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().contains(model) {
            return self.open(model, data);
        }
        self.open_in(model, data, kept_in).or_else(|error| {
            failed().insert(model.to_owned());
            let shown = model.display();
            tracing::warn!(error = %error, "replicas of {shown} do not share their weights: {error}");
            self.open(model, data)
        })
    }

    /// Opens the packed model, which is made now where there is none of this model for this library and processor. Only one
    /// process makes or opens one at a time.
    fn open_in(
        &self,
        model: &Path,
        data: &[PathBuf],
        kept_in: &Path,
    ) -> Result<Opened, ShareError> {
        self.check_version()?;
        // What it refers to was checked beside the path as it was given: that is what is packed.
        let real = model.canonicalize().map_err(at(model))?;
        let folder = kept_in.join("onnx").join(hash(&real.to_string_lossy()));
        // For nobody else to read or write: who can change weights can change every vector.
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&folder)
            .map_err(at(&folder))?;
        let lock_file = folder.join("lock");
        let lock = File::create(&lock_file).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(at(&lock_file))?;
        let packed = folder.join(hash(&self.origin(model, data)?));
        if packed.is_dir() {
            match self.open_packed(&packed) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::warn!(error = %error, "{} is packed again: {error}", packed.display())
                }
            }
        }
        self.make(model, &folder, &packed)?;
        self.open_packed(&packed).map_err(ShareError::Open)
    }

    /// Makes the packed model, in the place of all that was there before.
    fn make(&self, model: &Path, folder: &Path, packed: &Path) -> Result<(), ShareError> {
        let new = folder.join("new");
        clear(folder)?;
        fs::create_dir(&new).map_err(at(&new))?;
        if let Err(error) = self.pack(model, &new) {
            // What cannot be removed now is by the next that makes one.
            _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        fs::rename(&new, packed).map_err(at(packed))
    }

    /// Earlier releases may use packed weights from where they lie in the file, without the alignment that their loops need.
    /// The library does not say its version to callers but in its name.
    fn check_version(&self) -> Result<(), ShareError> {
        let file = self.library.canonicalize().map_err(at(self.library))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if version(&name).is_some_and(|version| version >= OLDEST_THAT_SHARES) {
            return Ok(());
        }
        Err(ShareError::Version(file))
    }

    fn open_packed(&self, packed: &Path) -> Result<Opened, OpenError> {
        // It was optimized before it was written.
        let level = GraphOptimizationLevel::Disable;
        let builder = self.builder()?.with_optimization_level(level);
        let builder = builder.map_err(ort::Error::from)?;
        let model = packed.join(MODEL);
        let checked = external::check(&model).map_err(OpenError::Files)?;
        let copy = self.copy(&model, &checked.files);
        self.open_copy(builder, &model, copy)
    }

    /// All that a packed model depends on.
    fn origin(&self, model: &Path, data: &[PathBuf]) -> Result<String, ShareError> {
        let mut origin = format!(
            "{} {} {}\n",
            env!("CARGO_PKG_VERSION"),
            self.bytes_overflow,
            cores::processor()
        );
        let files = [self.library, model].into_iter();
        for file in files.chain(data.iter().map(PathBuf::as_path)) {
            let metadata = file.metadata().map_err(at(file))?;
            // Writing to a string does not fail.
            _ = writeln!(origin, "{} {}", file.display(), stamp(&metadata));
        }
        Ok(origin)
    }

    fn pack(&self, model: &Path, folder: &Path) -> Result<(), ShareError> {
        tracing::info!(
            "packing the weights of {}, once, for replicas to share: into {}",
            model.display(),
            folder.display()
        );
        let to = folder.join(MODEL);
        let write = || {
            self.builder()?
                .with_optimized_model_path(&to)?
                .with_config_entry(
                    "session.optimized_model_external_initializers_file_name",
                    DATA,
                )?
                .with_config_entry(
                    "session.optimized_model_external_initializers_min_size_in_bytes",
                    "1024",
                )?
                .with_config_entry("session.save_external_prepacked_constant_initializers", "1")?
                .commit_from_file(model)
        };
        write().map_err(ShareError::Pack)?;
        // A full disk need not be an error to the library.
        external::check(&to).map_err(ShareError::Written)?;
        for name in [MODEL, DATA] {
            let path = folder.join(name);
            // Without it a power cut could leave the file with its length and nothing in it.
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(at(&path))?;
        }
        Ok(())
    }
}

/// Removes what was packed before: of another state of the model, or not to its end. Sessions that map it keep it.
fn clear(folder: &Path) -> Result<(), ShareError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ShareError {
    let path = path.to_owned();
    move |source| ShareError::File { path, source }
}

/// The version in a library's name, such as `libonnxruntime.so.1.32.0` or `libonnxruntime.1.32.0.dylib`.
fn version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split('.').filter_map(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// A name for a folder.
fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_s_version_is_read_from_its_name() {
        assert_eq!(version("libonnxruntime.so.1.32.0"), Some((1, 32)));
        assert_eq!(version("libonnxruntime.1.9.1.dylib"), Some((1, 9)));
        assert_eq!(version("libonnxruntime.so"), None);
        assert_eq!(version("libonnxruntime.so.1"), None);
    }
}
