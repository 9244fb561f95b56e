//! Kernels that a device has loaded, and streams that run them.

use std::{
    ffi::{CString, c_uint, c_void},
    ptr::null_mut,
    sync::Arc,
    time::Duration,
};

use super::{Buffer, Device};
use crate::{
    error::DriverError,
    ffi::{Address, Handle, MOST_SHARED, NON_BLOCKING},
    library::Shipped,
};

/// More shared memory than this needs leave.
const SHARED_WITHOUT_LEAVE: u32 = 48 << 10;

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    Address(Address),
    Int(i32),
    Float(f32),
}

/// A kernel that a device has loaded.
#[derive(Debug)]
pub(crate) struct Kernel {
    device: Arc<Device>,
    module: Handle,
    function: Handle,
    shared: u32,
    threads: u32,
}

// SAFETY: modules and functions may be used by any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// The entry of a kernel, and the size of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// Bytes of shared memory of a block.
    pub(crate) shared: u32,
    /// Threads of a block.
    pub(crate) threads: u32,
}

impl<'a> Entry<'a> {
    /// Returns the entry of a kernel that ships.
    pub(crate) fn of(shipped: &'a Shipped) -> Self {
        Self {
            name: &shipped.entry,
            shared: shipped.shared,
            threads: shipped.threads,
        }
    }
}

impl Kernel {
    /// Loads machine code, or PTX that ends with a zero.
    pub(crate) fn load(
        device: &Arc<Device>,
        image: &[u8],
        entry: Entry<'_>,
    ) -> Result<Self, DriverError> {
        let mut module = null_mut();
        {
            let functions = device.enter()?;
            // SAFETY: the image is a whole ELF file, or text that ends with a zero.
            let called =
                unsafe { (functions.cuModuleLoadData)(&raw mut module, image.as_ptr().cast()) };
            functions.check("cuModuleLoadData", called)?;
        }
        // From here on it is unloaded where something fails, which enters the device.
        let mut kernel = Self {
            device: Arc::clone(device),
            module,
            function: null_mut(),
            shared: entry.shared,
            threads: entry.threads,
        };
        kernel.find(entry)?;
        Ok(kernel)
    }

    fn find(&mut self, entry: Entry<'_>) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        let name = CString::new(entry.name).unwrap_or_default();
        // SAFETY: the module was loaded, the name ends with a zero.
        let called = unsafe {
            (functions.cuModuleGetFunction)(&raw mut self.function, self.module, name.as_ptr())
        };
        functions.check("cuModuleGetFunction", called)?;
        if entry.shared > SHARED_WITHOUT_LEAVE {
            // SAFETY: the function was found.
            let called = unsafe {
                (functions.cuFuncSetAttribute)(self.function, MOST_SHARED, entry.shared as i32)
            };
            functions.check("cuFuncSetAttribute", called)?;
        }
        Ok(())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: it was loaded here, and nothing is launched of it any more.
            unsafe { (functions.cuModuleUnload)(self.module) };
        }
    }
}

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

/// A moment of a stream.
struct Event<'a> {
    device: &'a Device,
    event: Handle,
}

impl<'a> Event<'a> {
    fn new(device: &'a Device) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut event = null_mut();
        // SAFETY: it writes a handle.
        let called = unsafe { (functions.cuEventCreate)(&raw mut event, 0) };
        functions.check("cuEventCreate", called)?;
        Ok(Self { device, event })
    }

    fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        // SAFETY: both were made on this device.
        let called = unsafe { (functions.cuEventRecord)(self.event, stream.stream) };
        functions.check("cuEventRecord", called)
    }

    fn since(&self, start: &Self) -> Result<Duration, DriverError> {
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
