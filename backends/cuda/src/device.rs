//! A card, and what is made on it: memory, kernels and streams. All that is unsafe in the driver's interface is behind this module.

#![expect(unsafe_code, reason = "the driver is a C library")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of launches fit into 32 bits"
)]

mod memory;
mod stream;

use std::{
    collections::BTreeMap,
    ffi::c_char,
    path::Path,
    ptr::null_mut,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) use self::{
    memory::{Buffer, Pinned},
    stream::{Argument, Entry, Kernel, Stream},
};
use crate::{
    error::DriverError,
    ffi::{Functions, Handle, attribute},
};

/// The oldest driver that takes the kernels' PTX: its version 8.0 came with CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// The driver, once it was loaded and started.
static DRIVER: OnceLock<Functions> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Loads and starts the driver: the library that is named, or the system's. Does nothing when one is loaded already.
fn driver(library: Option<&Path>) -> Result<&'static Functions, DriverError> {
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(functions) = DRIVER.get() {
        return Ok(functions);
    }
    let functions = Functions::find(library)?;
    let mut version = 0;
    // SAFETY: it writes a number.
    let called = unsafe { (functions.cuDriverGetVersion)(&raw mut version) };
    functions.check("cuDriverGetVersion", called)?;
    if version < OLDEST_DRIVER {
        return Err(DriverError::Old(version));
    }
    // SAFETY: it takes no pointer.
    functions.check("cuInit", unsafe { (functions.cuInit)(0) })?;
    Ok(DRIVER.get_or_init(|| functions))
}

/// How often each device was reset: what was made before is not to be touched, since its addresses may be those of others by now.
static RESETS: Mutex<BTreeMap<i32, Arc<AtomicU64>>> = Mutex::new(BTreeMap::new());

/// A card, with the context that all of this process share.
#[derive(Debug)]
pub struct Device {
    functions: &'static Functions,
    context: Handle,
    number: i32,
    /// Resets when this was opened, and those by now.
    resets_before: u64,
    resets: Arc<AtomicU64>,
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

// SAFETY: the context may be used by any thread, which makes it current first.
unsafe impl Send for Device {}
// SAFETY: as above; the driver's functions may be called at the same time.
unsafe impl Sync for Device {}

impl Device {
    /// Opens a device by its number. `library` names the driver's library; without it, it is the system's.
    ///
    /// # Errors
    /// [`DriverError`] says what is missing or too old.
    pub fn open(library: Option<&Path>, number: usize) -> Result<Arc<Self>, DriverError> {
        let functions = driver(library)?;
        let mut available = 0;
        // SAFETY: it writes a number.
        let called = unsafe { (functions.cuDeviceGetCount)(&raw mut available) };
        functions.check("cuDeviceGetCount", called)?;
        let available = usize::try_from(available).unwrap_or(0);
        if number >= available {
            return Err(DriverError::NoDevice {
                asked: number,
                available,
            });
        }
        let mut device = 0;
        // SAFETY: it writes a number.
        let called = unsafe { (functions.cuDeviceGet)(&raw mut device, number as i32) };
        functions.check("cuDeviceGet", called)?;
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: it writes a number.
            let called =
                unsafe { (functions.cuDeviceGetAttribute)(&raw mut value, attribute, device) };
            functions.check("cuDeviceGetAttribute", called)?;
            Ok::<_, DriverError>(value)
        };
        let (major, minor) = (
            attribute(attribute::CAPABILITY_MAJOR)?,
            attribute(attribute::CAPABILITY_MINOR)?,
        );
        let name = name(functions, device)?;
        if major < 8 {
            return Err(DriverError::OldDevice { name, major, minor });
        }
        let (mut memory, mut driver_version, mut context) = (0, 0, null_mut());
        // SAFETY: each writes one value.
        unsafe {
            let called = (functions.cuDeviceTotalMem_v2)(&raw mut memory, device);
            functions.check("cuDeviceTotalMem", called)?;
            let called = (functions.cuDriverGetVersion)(&raw mut driver_version);
            functions.check("cuDriverGetVersion", called)?;
            let called = (functions.cuDevicePrimaryCtxRetain)(&raw mut context, device);
            functions.check("cuDevicePrimaryCtxRetain", called)?;
        }
        let multiprocessors = usize::try_from(attribute(attribute::MULTIPROCESSORS)?).unwrap_or(1);
        let resets = {
            let mut all = RESETS.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(device).or_default())
        };
        let mut device = Self {
            resets_before: resets.load(Ordering::SeqCst),
            resets,
            functions,
            context,
            number: device,
            name,
            capability: (major, minor),
            multiprocessors,
            driver_version,
            memory,
        };
        if device.free_memory().is_err() {
            // A fault of before stays until all is ended; then the device is as new.
            device.reset()?;
            device.resets_before = device.resets.load(Ordering::SeqCst);
            device.free_memory()?;
        }
        Ok(Arc::new(device))
    }

    /// Makes the context current in this thread.
    fn enter(&self) -> Result<&'static Functions, DriverError> {
        if self.resets.load(Ordering::SeqCst) != self.resets_before {
            return Err(DriverError::Reset);
        }
        // SAFETY: the context is kept for as long as the process lives.
        let called = unsafe { (self.functions.cuCtxSetCurrent)(self.context) };
        self.functions.check("cuCtxSetCurrent", called)?;
        Ok(self.functions)
    }

    /// Free memory, in bytes.
    fn free_memory(&self) -> Result<usize, DriverError> {
        let functions = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        let called = unsafe { (functions.cuMemGetInfo_v2)(&raw mut free, &raw mut total) };
        functions.check("cuMemGetInfo", called)?;
        Ok(free)
    }

    /// Ends all that is on the device, after an error that stays. What was made on it is of no use any more.
    fn reset(&self) -> Result<(), DriverError> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        // SAFETY: it takes no pointer.
        let called = unsafe { (self.functions.cuDevicePrimaryCtxReset_v2)(self.number) };
        self.functions.check("cuDevicePrimaryCtxReset", called)
    }
}

fn name(functions: &Functions, device: i32) -> Result<String, DriverError> {
    let mut bytes = [0_u8; 128];
    // SAFETY: it writes a text into as many bytes as are said, less one.
    let called = unsafe {
        let begin = bytes.as_mut_ptr().cast::<c_char>();
        (functions.cuDeviceGetName)(begin, bytes.len() as i32 - 1, device)
    };
    functions.check("cuDeviceGetName", called)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}
