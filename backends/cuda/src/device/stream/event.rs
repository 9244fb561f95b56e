//! Moments of a stream, between which the device measures time.

use std::{ptr::null_mut, time::Duration};

use super::Stream;
use crate::{device::Device, error::DriverError, ffi::Handle};

/// A moment of a stream.
pub(super) struct Event<'a> {
    device: &'a Device,
    event: Handle,
}

impl<'a> Event<'a> {
    /// An event that is not recorded yet.
    pub(super) fn new(device: &'a Device) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut event = null_mut();
        // SAFETY: it writes a handle.
        let called = unsafe { (functions.cuEventCreate)(&raw mut event, 0) };
        functions.check("cuEventCreate", called)?;
        Ok(Self { device, event })
    }

    /// Records the moment when the stream comes here.
    pub(super) fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        // SAFETY: both were made on this device.
        let called = unsafe { (functions.cuEventRecord)(self.event, stream.stream) };
        functions.check("cuEventRecord", called)
    }

    /// Waits for this event, and returns the time since another one.
    pub(super) fn since(&self, start: &Self) -> Result<Duration, DriverError> {
        let functions = self.device.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both were recorded; it writes a number.
        unsafe {
            let called = (functions.cuEventSynchronize)(self.event);
            functions.check("cuEventSynchronize", called)?;
            let called =
                (functions.cuEventElapsedTime)(&raw mut milliseconds, start.event, self.event);
            functions.check("cuEventElapsedTime", called)?;
        }
        Ok(Duration::from_secs_f32(milliseconds.max(0.0) / 1e3))
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: it was made here.
            unsafe { (functions.cuEventDestroy_v2)(self.event) };
        }
    }
}
