//! A card, and what is made on it: memory, kernels and streams. All that is unsafe in the driver's interface is behind this module.

#![expect(unsafe_code, reason = "the driver is a C library")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of launches fit into 32 bits"
)]

mod driver;
mod kernel;
mod memory;
mod stream;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use self::driver::{attribute, capability, count, driver, handle, name, working_context};
pub(crate) use self::{
    kernel::{Argument, Entry, Kernel},
    memory::Buffer,
    stream::Stream,
};
use crate::{
    error::DriverError,
    ffi::{Functions, Handle, attribute},
};

/// The oldest generation of cards whose tensor cores the kernels use: Ampere.
const OLDEST_MAJOR: i32 = 8;

/// The number of resets of each device. Calls hold it to read, and a reset to write, so that none is made of what was made
/// before: addresses may be those of others by now.
static RESETS: Mutex<BTreeMap<i32, Arc<RwLock<u64>>>> = Mutex::new(BTreeMap::new());

/// A card, with the context that all of this process share.
#[derive(Debug)]
pub struct Device {
    functions: &'static Functions,
    context: Handle,
    /// Resets when this was opened, and those by now.
    resets_before: u64,
    resets: Arc<RwLock<u64>>,
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Its compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Its number of multiprocessors.
    pub multiprocessors: usize,
    /// The version of CUDA that the driver knows, such as 12080.
    pub driver_version: i32,
    /// All of its memory, in bytes.
    pub memory: usize,
}

/// A card that the driver finds.
#[derive(Clone, Debug)]
pub struct ListedDevice {
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Its compute capability, such as (9, 0).
    pub capability: (i32, i32),
}

impl ListedDevice {
    /// True where the kernels run.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.capability.0 >= OLDEST_MAJOR
    }
}

// SAFETY: the context may be used by any thread, which makes it current first.
unsafe impl Send for Device {}
// SAFETY: as above; the driver's functions may be called at the same time.
unsafe impl Sync for Device {}

impl Device {
    /// The devices that the driver finds, by name and compute capability, of any age. Opens none.
    ///
    /// # Errors
    /// [`DriverError`] says what is missing or too old.
    pub fn list(library: Option<&Path>) -> Result<Vec<ListedDevice>, DriverError> {
        let functions = driver(library)?;
        let described = |number| {
            let device = handle(functions, number)?;
            Ok(ListedDevice {
                name: name(functions, device)?,
                capability: capability(functions, device)?,
            })
        };
        (0..count(functions)?).map(described).collect()
    }

    /// Opens a device by its number. `library` names the driver's library; without it, it is the system's.
    ///
    /// # Errors
    /// [`DriverError`] says what is missing or too old.
    pub fn open(library: Option<&Path>, number: usize) -> Result<Arc<Self>, DriverError> {
        let functions = driver(library)?;
        let available = count(functions)?;
        if number >= available {
            return Err(DriverError::NoDevice {
                asked: number,
                available,
            });
        }
        let device = handle(functions, number)?;
        let (major, minor) = capability(functions, device)?;
        let name = name(functions, device)?;
        if major < OLDEST_MAJOR {
            return Err(DriverError::OldDevice { name, major, minor });
        }
        let (mut memory, mut driver_version) = (0, 0);
        // SAFETY: each writes one value.
        unsafe {
            let called = (functions.cuDeviceTotalMem_v2)(&raw mut memory, device);
            functions.check("cuDeviceTotalMem", called)?;
            let called = (functions.cuDriverGetVersion)(&raw mut driver_version);
            functions.check("cuDriverGetVersion", called)?;
        }
        let multiprocessors =
            usize::try_from(attribute(functions, device, attribute::MULTIPROCESSORS)?).unwrap_or(1);
        let resets = {
            let mut all = RESETS.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(device).or_default())
        };
        let (context, resets_before) = {
            let mut resets = resets.write().unwrap_or_else(PoisonError::into_inner);
            let context = match working_context(functions, device) {
                Err(error) if error.is_lasting() => {
                    // A fault of before stays until all is ended; then the device is as new.
                    tracing::warn!("cuda:{number} is reset after a fault: {error}");
                    *resets += 1;
                    // SAFETY: it takes no pointer, and nobody else calls the driver for this device meanwhile.
                    let called = unsafe { (functions.cuDevicePrimaryCtxReset_v2)(device) };
                    functions.check("cuDevicePrimaryCtxReset", called)?;
                    working_context(functions, device)?
                }
                found => found?,
            };
            (context, *resets)
        };
        Ok(Arc::new(Self {
            functions,
            context,
            resets_before,
            resets,
            name,
            capability: (major, minor),
            multiprocessors,
            driver_version,
            memory,
        }))
    }

    /// Makes the context current in this thread, and keeps the device from being reset while the functions are held.
    fn enter(&self) -> Result<Entered<'_>, DriverError> {
        let resets = self.resets.read().unwrap_or_else(PoisonError::into_inner);
        if *resets != self.resets_before {
            return Err(DriverError::Reset);
        }
        // SAFETY: the context is kept until the device is reset.
        let called = unsafe { (self.functions.cuCtxSetCurrent)(self.context) };
        self.functions.check("cuCtxSetCurrent", called)?;
        Ok(Entered {
            functions: self.functions,
            _resets: resets,
        })
    }
}

/// The driver's functions, in a thread in which a device's context is current and stays.
struct Entered<'a> {
    functions: &'static Functions,
    _resets: RwLockReadGuard<'a, u64>,
}

impl std::ops::Deref for Entered<'_> {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        self.functions
    }
}
