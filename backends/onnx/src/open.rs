//! Opens sessions of ONNX Runtime: their settings, and weights that sessions share.
//!
//! A session packs its weights for the processor, into memory of its own. Where several are to run one model, the first
//! keeps what it packed in files, and all map one copy of those: the system holds it once for this process. The files are
//! made again when the model, the library or the processor is another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use embedgate_core::cores;
use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};
use thiserror::Error;

use crate::{external, private::PrivateCopy};

/// The packed model's files, in a folder of their own.
const MODEL: &str = "model.onnx";
const DATA: &str = "model.onnx_data";

/// Tested, with weights of many sizes.
const OLDEST_THAT_SHARES: (u32, u32) = (1, 32);

/// Models whose weights could not be shared: it is not tried again for each replica, for it may have taken gigabytes.
static FAILED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The copies of models that this process maps, by the state of their files: replicas map one.
static COPIES: Mutex<BTreeMap<String, Weak<PrivateCopy>>> = Mutex::new(BTreeMap::new());

/// A session, and the files that it maps.
pub(crate) struct Opened {
    pub(crate) session: Session,
    /// Removed after it; none where it maps no file, or where none could be copied.
    _files: Option<Arc<PrivateCopy>>,
}

/// Why a model cannot be opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// Its files are not whole.
    #[error("{0}")]
    Files(String),
    /// ONNX Runtime refuses it.
    #[error(transparent)]
    Runtime(#[from] ort::Error),
}

/// Why weights cannot be shared.
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
    /// What the library wrote is not whole, though it gave no error.
    #[error("{0}")]
    Written(String),
    #[error("ONNX Runtime cannot open them: {0}")]
    Open(#[source] OpenError),
    #[error("ONNX Runtime at {0} is not known to be of version 1.32 or newer, by its file's name")]
    Version(PathBuf),
}

/// How the sessions of a model are opened.
pub(crate) struct Opener<'a> {
    pub(crate) environment: &'a Environment,
    /// The library's own file.
    pub(crate) library: &'a Path,
    /// Threads within one operation.
    pub(crate) threads: usize,
    /// Whether this processor's products of bytes overflow: see [`bytes_overflow`].
    pub(crate) bytes_overflow: bool,
    /// Where to keep files.
    pub(crate) state_folder: Option<&'a Path>,
}

impl Opener<'_> {
    /// A session with weights of its own. `data` are the files that the model refers to.
    pub(crate) fn open(&self, model: &Path, data: &[PathBuf]) -> Result<Opened, OpenError> {
        if data.is_empty() {
            // Such a file is read, not mapped.
            let session = self.builder()?.commit_from_file(model)?;
            return Ok(Opened {
                session,
                _files: None,
            });
        }
        let copy = self.copy(model, data);
        self.open_copy(self.builder()?, model, copy)
    }

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

    /// The copy of a model, which is made now where this process has none; none where it cannot be made, which the log says.
    fn copy(&self, model: &Path, data: &[PathBuf]) -> Option<Arc<PrivateCopy>> {
        let made = || -> io::Result<Arc<PrivateCopy>> {
            let mut state = String::new();
            for file in std::iter::once(model).chain(data.iter().map(PathBuf::as_path)) {
                // Writing to a string does not fail.
                _ = writeln!(state, "{} {}", file.display(), stamp(&file.metadata()?));
            }
            // Held while it is made: another replica of the model waits for it, and needs no room of its own.
            let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(copy) = copies.get(&state).and_then(Weak::upgrade) {
                return Ok(copy);
            }
            copies.retain(|_, copy| copy.strong_count() > 0);
            let copy = Arc::new(PrivateCopy::new(model, data, self.state_folder)?);
            copies.insert(state, Arc::downgrade(&copy));
            Ok(copy)
        };
        made()
            .inspect_err(|error| {
                let shown = model.display();
                tracing::warn!(
                    error = %error,
                    "{shown} cannot be copied: {error}; its files must not be written to while it is served, see server.state_dir"
                );
            })
            .ok()
    }

    /// Opens the copy of a model, or the model itself where there is none.
    fn open_copy(
        &self,
        mut builder: SessionBuilder,
        model: &Path,
        copy: Option<Arc<PrivateCopy>>,
    ) -> Result<Opened, OpenError> {
        let opened = match &copy {
            Some(copy) => {
                // The files may have changed since they were checked.
                external::check(copy.model()).map_err(OpenError::Files)?;
                copy.model()
            }
            None => model,
        };
        let session = builder.commit_from_file(opened)?;
        Ok(Opened {
            session,
            _files: copy,
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

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            // Spinning threads take 30 to 40 % of a short query's time from the rest of the server.
            .with_intra_op_spinning(false)?
            // Lengths vary from call to call: a plan of memory for each would be kept for ever.
            .with_memory_pattern(false)?;
        if self.bytes_overflow {
            // kOrtSessionOptionsAvx2PrecisionMode: weights become unsigned, which is slower and cannot overflow.
            builder = builder.with_config_entry("session.x64quantprecision", "1")?;
        }
        Ok(builder)
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

/// What differs between two states of a file; times alone can be set to anything, as images of containers do.
fn stamp(metadata: &fs::Metadata) -> String {
    let times = [
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    format!("{} {} {times:?}", metadata.len(), metadata.ino())
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

/// Whether this processor has only instructions that add two products of an unsigned and a signed byte in 16 bits, and clamp
/// a sum that does not fit.
#[cfg(target_arch = "x86_64")]
pub fn bytes_overflow() -> bool {
    !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
}

/// Other processors add in 32 bits.
#[cfg(not(target_arch = "x86_64"))]
pub fn bytes_overflow() -> bool {
    false
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
