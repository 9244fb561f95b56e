//! The driver, which is loaded and started once a process, and what it says of its devices.

use std::{
    ffi::c_char,
    path::Path,
    ptr::null_mut,
    sync::{Mutex, OnceLock, PoisonError},
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
pub(super) fn driver(library: Option<&Path>) -> Result<&'static Functions, DriverError> {
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

/// Returns the number of devices.
pub(super) fn count(functions: &Functions) -> Result<usize, DriverError> {
    let mut available = 0;
    // SAFETY: it writes a number.
    let called = unsafe { (functions.cuDeviceGetCount)(&raw mut available) };
    functions.check("cuDeviceGetCount", called)?;
    Ok(usize::try_from(available).unwrap_or(0))
}

/// The driver's own number of a device.
pub(super) fn handle(functions: &Functions, number: usize) -> Result<i32, DriverError> {
    let mut device = 0;
    // SAFETY: it writes a number.
    let called = unsafe { (functions.cuDeviceGet)(&raw mut device, number as i32) };
    functions.check("cuDeviceGet", called)?;
    Ok(device)
}

/// Returns one of the facts of a device.
pub(super) fn attribute(
    functions: &Functions,
    device: i32,
    attribute: i32,
) -> Result<i32, DriverError> {
    let mut value = 0;
    // SAFETY: it writes a number.
    let called = unsafe { (functions.cuDeviceGetAttribute)(&raw mut value, attribute, device) };
    functions.check("cuDeviceGetAttribute", called)?;
    Ok(value)
}

/// Returns the compute capability of a device.
pub(super) fn capability(functions: &Functions, device: i32) -> Result<(i32, i32), DriverError> {
    Ok((
        attribute(functions, device, attribute::CAPABILITY_MAJOR)?,
        attribute(functions, device, attribute::CAPABILITY_MINOR)?,
    ))
}

/// The context that all of this process share, if it works.
pub(super) fn working_context(functions: &Functions, device: i32) -> Result<Handle, DriverError> {
    let (mut context, mut free, mut total) = (null_mut(), 0, 0);
    // SAFETY: each writes what it is given a place for.
    unsafe {
        let called = (functions.cuDevicePrimaryCtxRetain)(&raw mut context, device);
        functions.check("cuDevicePrimaryCtxRetain", called)?;
        let called = (functions.cuCtxSetCurrent)(context);
        functions.check("cuCtxSetCurrent", called)?;
        let called = (functions.cuMemGetInfo_v2)(&raw mut free, &raw mut total);
        functions.check("cuMemGetInfo", called)?;
    }
    Ok(context)
}

/// Returns the name of a device.
pub(super) fn name(functions: &Functions, device: i32) -> Result<String, DriverError> {
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
