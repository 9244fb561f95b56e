//! Opens sessions of ONNX Runtime: their settings, their device, and private copies of the files that they map.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};
use thiserror::Error;

use crate::{device::Device, external, placement, private::PrivateCopy};

/// The copies of models that this process maps, by the state of their files: replicas map one.
static COPIES: Mutex<BTreeMap<String, Weak<PrivateCopy>>> = Mutex::new(BTreeMap::new());

/// A session, and the files that it maps.
pub(crate) struct Opened {
    /// None once it is dropped, at its device's turn.
    session: Option<Session>,
    device: Device,
    /// Removed after it; none where it maps no file, or where none could be copied.
    _files: Option<Arc<PrivateCopy>>,
}

impl Opened {
    /// The session, which is there as long as this is.
    pub(crate) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("dropped with this alone")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _turn = self.device.turn();
        self.session = None;
    }
}

/// The reasons why a model cannot be opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// Its files are not whole.
    #[error("{0}")]
    Files(String),
    /// ONNX Runtime refuses it.
    #[error(transparent)]
    Runtime(#[from] ort::Error),
    /// Its device does not run it.
    #[error("{0}")]
    Placement(String),
}

/// The settings by which the sessions of a model are opened.
pub(crate) struct Opener<'a> {
    pub(crate) environment: &'a Environment,
    /// The library's own file.
    pub(crate) library: &'a Path,
    /// The device that sessions run on.
    pub(crate) device: Device,
    /// Threads within one operation.
    pub(crate) threads: usize,
    /// True when this processor's products of bytes overflow: see [`bytes_overflow`].
    pub(crate) bytes_overflow: bool,
    /// The folder to keep files in.
    pub(crate) state_folder: Option<&'a Path>,
}

impl Opener<'_> {
    /// A session with weights of its own. `data` are the files that the model refers to.
    pub(crate) fn open(&self, model: &Path, data: &[PathBuf]) -> Result<Opened, OpenError> {
        if data.is_empty() {
            // Such a file is read, not mapped.
            return self.commit(self.builder()?, model, None);
        }
        let copy = self.copy(model, data);
        self.open_copy(self.builder()?, model, copy)
    }

    /// The copy of a model, which is made now where this process has none; none where it cannot be made, which the log says.
    pub(crate) fn copy(&self, model: &Path, data: &[PathBuf]) -> Option<Arc<PrivateCopy>> {
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
    pub(crate) fn open_copy(
        &self,
        builder: SessionBuilder,
        model: &Path,
        copy: Option<Arc<PrivateCopy>>,
    ) -> Result<Opened, OpenError> {
        if let Some(copy) = &copy {
            // The files may have changed since they were checked.
            external::check(copy.model()).map_err(OpenError::Files)?;
        }
        self.commit(builder, model, copy)
    }

    /// Opens the session, and checks that its device runs it.
    fn commit(
        &self,
        mut builder: SessionBuilder,
        model: &Path,
        files: Option<Arc<PrivateCopy>>,
    ) -> Result<Opened, OpenError> {
        let file = files.as_ref().map_or(model, |copy| copy.model());
        let session = {
            let _turn = self.device.turn();
            builder.commit_from_file(file)?
        };
        let mut opened = Opened {
            session: Some(session),
            device: self.device,
            _files: files,
        };
        placement::check(opened.session(), self.device).map_err(OpenError::Placement)?;
        Ok(opened)
    }

    /// Makes a session in the making, with the settings that all sessions have.
    pub(crate) fn builder(&self) -> ort::Result<SessionBuilder> {
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
        let _turn = self.device.turn();
        self.device.select(builder, self.environment)
    }
}

/// Returns a stamp that differs between two states of a file. Times alone do not suffice: they can be set to any value,
/// as images of containers do.
pub(crate) fn stamp(metadata: &fs::Metadata) -> String {
    let times = [
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    format!("{} {} {times:?}", metadata.len(), metadata.ino())
}

/// Returns true when this processor has only instructions that add two products of bytes in 16 bits. They multiply an
/// unsigned and a signed byte, and clamp a sum that does not fit.
#[cfg(target_arch = "x86_64")]
pub fn bytes_overflow() -> bool {
    !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
}

/// Other processors add in 32 bits.
#[cfg(not(target_arch = "x86_64"))]
pub fn bytes_overflow() -> bool {
    false
}
