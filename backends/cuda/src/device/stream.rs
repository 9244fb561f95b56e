//! Streams, which do on a device what they are told: copies, and launches of kernels.

mod event;

use std::{
    ffi::{c_uint, c_void},
    ptr::null_mut,
    sync::Arc,
    time::Duration,
};

use self::event::Event;
use super::{
    Device,
    kernel::{Argument, Kernel},
    memory::Buffer,
};
use crate::{
    error::DriverError,
    ffi::{Handle, NON_BLOCKING},
};

/// The most arguments of a kernel, with the two of Triton's own.
const MOST_ARGUMENTS: usize = 20;

/// Work that a device does in the order in which it is told.
#[derive(Debug)]
pub(crate) struct Stream {
    device: Arc<Device>,
    stream: Handle,
}

// SAFETY: a stream may be used by any thread.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream that waits for no other.
    pub(crate) fn new(device: &Arc<Device>) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut stream = null_mut();
        // SAFETY: it writes a handle.
        let called = unsafe { (functions.cuStreamCreate)(&raw mut stream, NON_BLOCKING) };
        functions.check("cuStreamCreate", called)?;
        Ok(Self {
            device: Arc::clone(device),
            stream,
        })
    }

    /// The device that it is on.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Copies numbers to a place in a buffer, in bytes from its beginning, and waits until they are there.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn upload<T: Copy>(
        &self,
        numbers: &[T],
        to: &Buffer,
        offset: usize,
    ) -> Result<(), DriverError> {
        // SAFETY: the numbers are there until the copy was waited for.
        unsafe { self.begin_upload(numbers, to, offset)? };
        self.wait()
    }

    /// Begins to copy numbers to a place in a buffer.
    ///
    /// # Safety
    /// They must not change before the stream was waited for.
    ///
    /// # Panics
    /// When they do not fit.
    unsafe fn begin_upload<T: Copy>(
        &self,
        numbers: &[T],
        to: &Buffer,
        offset: usize,
    ) -> Result<(), DriverError> {
        let bytes = size_of_val(numbers);
        assert!(offset + bytes <= to.bytes, "it fits");
        let functions = self.device.enter()?;
        // SAFETY: both are as long; the caller keeps the numbers.
        let called = unsafe {
            let from = numbers.as_ptr().cast::<c_void>();
            let to = to.address + offset as u64;
            (functions.cuMemcpyHtoDAsync_v2)(to, from, bytes, self.stream)
        };
        functions.check("cuMemcpyHtoDAsync", called)
    }

    /// Begins to copy the beginning of a buffer to so many numbers.
    ///
    /// # Safety
    /// They must not be read or written before the stream was waited for.
    ///
    /// # Panics
    /// When the buffer is shorter.
    unsafe fn begin_download<T: Copy>(
        &self,
        from: &Buffer,
        numbers: &mut [T],
    ) -> Result<(), DriverError> {
        let bytes = size_of_val(numbers);
        assert!(bytes <= from.bytes, "there is as much");
        let functions = self.device.enter()?;
        // SAFETY: both are as long; any bytes are numbers, and the caller keeps away from them.
        let called = unsafe {
            let to = numbers.as_mut_ptr().cast::<c_void>();
            (functions.cuMemcpyDtoHAsync_v2)(to, from.address, bytes, self.stream)
        };
        functions.check("cuMemcpyDtoHAsync", called)
    }

    /// Copies the beginning of a buffer, and waits until it is there.
    pub(crate) fn download<T: Copy>(
        &self,
        from: &Buffer,
        numbers: &mut [T],
    ) -> Result<(), DriverError> {
        // SAFETY: nobody sees the numbers before the copy was waited for.
        unsafe { self.begin_download(from, numbers)? };
        self.wait()
    }

    /// Fills a buffer with a byte.
    pub(crate) fn fill(&self, to: &Buffer, byte: u8) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        // SAFETY: the buffer has so many bytes.
        let called =
            unsafe { (functions.cuMemsetD8Async)(to.address, byte, to.bytes, self.stream) };
        functions.check("cuMemsetD8Async", called)
    }

    /// Launches a kernel on so many blocks. Triton's two arguments, of memory that these kernels do not have, are added.
    ///
    /// # Safety
    /// The arguments must be what the kernel takes, and buffers as large as it reads and writes there.
    ///
    /// # Panics
    /// When there are too many arguments.
    pub(crate) unsafe fn launch(
        &self,
        kernel: &Kernel,
        [x, y]: [usize; 2],
        arguments: &[Argument],
    ) -> Result<(), DriverError> {
        let mut values = [0_u64; MOST_ARGUMENTS];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match *argument {
                Argument::Address(address) => address,
                // The lower bytes are the first: the parameter's size says how many are read.
                Argument::Int(n) => u64::from(n.cast_unsigned()),
                Argument::Float(x) => u64::from(x.to_bits()),
            };
        }
        assert!(arguments.len() + 2 <= MOST_ARGUMENTS, "few arguments");
        let mut pointers = values
            .each_mut()
            .map(|value| std::ptr::from_mut(value).cast());
        let functions = self.device.enter()?;
        // SAFETY: there is a pointer to every parameter; the caller says the rest.
        let called = unsafe {
            (functions.cuLaunchKernel)(
                kernel.function,
                x as c_uint,
                y as c_uint,
                1,
                kernel.threads,
                1,
                1,
                kernel.shared,
                self.stream,
                pointers.as_mut_ptr(),
                null_mut(),
            )
        };
        functions.check("cuLaunchKernel", called)
    }

    /// Waits until all is done.
    pub(crate) fn wait(&self) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        // SAFETY: the stream is this one's.
        let called = unsafe { (functions.cuStreamSynchronize)(self.stream) };
        functions.check("cuStreamSynchronize", called)
    }

    /// The time that work takes on the device.
    pub(crate) fn time(
        &self,
        work: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<Duration, DriverError> {
        let (start, end) = (Event::new(&self.device)?, Event::new(&self.device)?);
        start.record(self)?;
        work()?;
        end.record(self)?;
        end.since(&start)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: the stream is this one's.
            unsafe { (functions.cuStreamDestroy_v2)(self.stream) };
        }
    }
}
