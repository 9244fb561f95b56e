//! A card, and what is made on it: memory, streams, kernels. All that is unsafe in the driver's interface is behind this module.

#![expect(unsafe_code, reason = "the driver is a C library")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of launches fit into 32 bits"
)]

use std::{
    collections::BTreeMap,
    ffi::{CString, c_char, c_uint, c_void},
    marker::PhantomData,
    path::Path,
    ptr::{NonNull, null_mut},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    error::DriverError,
    ffi::{Address, Functions, Handle, MOST_SHARED, NON_BLOCKING, attribute},
};

/// The oldest driver that takes the kernels' PTX: its version 8.0 came with CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;
/// More shared memory than this needs leave.
const SHARED_WITHOUT_LEAVE: u32 = 48 << 10;

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

/// A block of a device's memory.
#[derive(Debug)]
pub(crate) struct Buffer {
    device: Arc<Device>,
    address: Address,
    bytes: usize,
}

impl Buffer {
    /// A block of so many bytes, which hold anything.
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut address = 0;
        let bytes = bytes.max(1);
        // SAFETY: it writes an address.
        let called = unsafe { (functions.cuMemAlloc_v2)(&raw mut address, bytes) };
        functions.check("cuMemAlloc", called)?;
        Ok(Self {
            device: Arc::clone(device),
            address,
            bytes,
        })
    }

    /// Where it is on the device.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // After a fault or a reset it is gone already.
        if let Ok(functions) = self.device.enter() {
            // SAFETY: the block is this one's, and nobody has its address any more.
            unsafe { (functions.cuMemFree_v2)(self.address) };
        }
    }
}

/// Numbers that a device may read and write while the processor does something else: their memory stays where it is.
#[derive(Debug)]
pub(crate) struct Pinned<T> {
    device: Arc<Device>,
    begin: NonNull<T>,
    length: usize,
    of: PhantomData<T>,
}

// SAFETY: it owns its memory.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Copy + Default> Pinned<T> {
    /// So many numbers, which are zeros.
    pub(crate) fn new(device: &Arc<Device>, length: usize) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let (mut begin, length) = (null_mut(), length.max(1));
        // SAFETY: it writes an address.
        let called =
            unsafe { (functions.cuMemAllocHost_v2)(&raw mut begin, length * size_of::<T>()) };
        functions.check("cuMemAllocHost", called)?;
        let begin = NonNull::new(begin.cast::<T>()).ok_or(DriverError::Failed {
            call: "cuMemAllocHost",
            code: 0,
            name: "no address".into(),
        })?;
        for i in 0..length {
            // SAFETY: there is room for so many.
            unsafe { begin.add(i).write(T::default()) };
        }
        Ok(Self {
            device: Arc::clone(device),
            begin,
            length,
            of: PhantomData,
        })
    }

    pub(crate) fn numbers(&self) -> &[T] {
        // SAFETY: so many were written, and the device only writes in calls that borrow this mutably until they are waited for.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.length) }
    }

    pub(crate) fn numbers_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.begin.as_ptr(), self.length) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: it came from cuMemAllocHost, and nobody has its address any more.
            unsafe { (functions.cuMemFreeHost)(self.begin.as_ptr().cast()) };
        }
    }
}

/// What a kernel is given.
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

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// Bytes of shared memory of a block.
    pub(crate) shared: u32,
    /// Threads of a block.
    pub(crate) threads: u32,
}

impl Kernel {
    /// Loads machine code, or PTX that ends with a zero.
    pub(crate) fn load(
        device: &Arc<Device>,
        image: &[u8],
        entry: Entry<'_>,
    ) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut module = null_mut();
        // SAFETY: the image is a whole ELF file, or text that ends with a zero.
        let called =
            unsafe { (functions.cuModuleLoadData)(&raw mut module, image.as_ptr().cast()) };
        functions.check("cuModuleLoadData", called)?;
        // From here on it is unloaded where something fails.
        let mut kernel = Self {
            device: Arc::clone(device),
            module,
            function: null_mut(),
            shared: entry.shared,
            threads: entry.threads,
        };
        let name = CString::new(entry.name).unwrap_or_default();
        // SAFETY: the module was loaded, the name ends with a zero.
        let called = unsafe {
            (functions.cuModuleGetFunction)(&raw mut kernel.function, module, name.as_ptr())
        };
        functions.check("cuModuleGetFunction", called)?;
        if entry.shared > SHARED_WITHOUT_LEAVE {
            // SAFETY: the function was found.
            let called = unsafe {
                (functions.cuFuncSetAttribute)(kernel.function, MOST_SHARED, entry.shared as i32)
            };
            functions.check("cuFuncSetAttribute", called)?;
        }
        Ok(kernel)
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
    pub(crate) unsafe fn begin_upload<T: Copy>(
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
    pub(crate) unsafe fn begin_download<T: Copy>(
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
