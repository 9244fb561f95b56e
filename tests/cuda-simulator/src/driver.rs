//! The functions of the library, as far as embedgate calls them.
//!
//! Source: NVIDIA, CUDA Driver API 12.0, `cuda.h`.

#![expect(
    unsafe_code,
    reason = "functions of a C library are given bare pointers"
)]

use std::{
    cell::Cell,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::{
    device::{Device, Outcome, Place, Work, code},
    images::Images,
    launch::Grid,
    settings::Settings,
};

struct Driver {
    settings: Settings,
    /// Each works on its own, so that tests on several run at the same time.
    devices: Vec<Mutex<Device>>,
}

static DRIVER: LazyLock<Driver> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "a driver has nobody to ask")]
    let text = std::env::var("CUDA_SIMULATOR").unwrap_or_default();
    #[expect(clippy::expect_used, reason = "a test that says nonsense shall end")]
    let settings = Settings::parse(&text).expect("settings");
    let devices = (0..settings.devices).map(|i| Mutex::new(Device::new(i, &settings)));
    Driver {
        devices: devices.collect(),
        settings,
    }
});

thread_local! {
    /// The device whose context is current.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

fn device(number: c_int) -> MutexGuard<'static, Device> {
    let device = DRIVER.devices[number as usize].lock();
    device.unwrap_or_else(PoisonError::into_inner)
}

fn result(outcome: Outcome) -> c_int {
    outcome.err().unwrap_or(0)
}

/// Does something with the device whose context is current, unless that has failed before.
fn on_device(act: impl FnOnce(&mut Device, &Settings) -> Outcome) -> c_int {
    let current = CURRENT.get().ok_or(code::INVALID_CONTEXT);
    result(current.and_then(|current| {
        let mut device = device(current as c_int);
        device.check()?;
        act(&mut device, &DRIVER.settings)
    }))
}

/// Objects are known by their numbers, from 1.
fn handle(number: usize) -> *mut c_void {
    (number + 1) as *mut c_void
}

fn number(handle: *mut c_void) -> Outcome<usize> {
    (handle as usize).checked_sub(1).ok_or(code::INVALID_HANDLE)
}

/// Streams are known by their numbers; null is the default one.
fn stream_number(stream: *mut c_void) -> usize {
    stream as usize
}

macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $body:block)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the library's own function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int $body
        )*
    };
}

/// Writes to where a caller wants an answer.
macro_rules! answer {
    ($to:expr, $value:expr) => {{
        let value = $value;
        // SAFETY: the caller promises that it can be written.
        unsafe { $to.write(value) };
        0
    }};
}

functions! {
    /// Starts the library.
    fn cuInit(_flags: c_uint) {
        match DRIVER.settings.init {
            0 if DRIVER.devices.is_empty() => code::NO_DEVICE,
            error => error,
        }
    }

    /// The version of CUDA that the driver knows.
    fn cuDriverGetVersion(version: *mut c_int) {
        answer!(version, DRIVER.settings.driver)
    }

    /// The number of devices.
    fn cuDeviceGetCount(count: *mut c_int) {
        answer!(count, DRIVER.devices.len() as c_int)
    }

    /// A device by its number.
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        if usize::try_from(ordinal).is_ok_and(|i| i < DRIVER.devices.len()) {
            answer!(device, ordinal)
        } else {
            code::INVALID_DEVICE
        }
    }

    /// A device's name.
    fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
        let text = c"Simulated GPU".to_bytes_with_nul();
        if usize::try_from(length).is_ok_and(|n| n < text.len()) {
            return code::INVALID_VALUE;
        }
        // SAFETY: the caller promises so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        0
    }

    /// A device's memory, in bytes.
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        answer!(bytes, self::device(device).memory.size())
    }

    /// A fact of a device, by its number.
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        let (major, minor) = DRIVER.settings.capability;
        let found = match attribute {
            75 => major,
            76 => minor,
            16 => DRIVER.settings.multiprocessors,
            // Shared memory of a block, with leave.
            97 => most_shared((major, minor)) as c_int,
            _ => return code::INVALID_VALUE,
        };
        answer!(value, found)
    }

    /// The context that all of a process share; after a fault it cannot be had before it was reset.
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) {
        let outcome = self::device(device).retain();
        if outcome.is_ok() {
            answer!(context, handle(device as usize));
        }
        result(outcome)
    }

    /// Leaves it.
    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) {
        0
    }

    /// Ends it, with all that is in it.
    fn cuDevicePrimaryCtxReset_v2(device: c_int) {
        self::device(device).reset();
        0
    }

    /// Makes a context current in this thread.
    fn cuCtxSetCurrent(context: *mut c_void) {
        CURRENT.set(number(context).ok());
        0
    }

    /// Waits for all streams.
    fn cuCtxSynchronize() {
        on_device(Device::wait_for_all)
    }

    /// Free memory and all memory, in bytes.
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        on_device(|device, _| {
            answer!(free, device.memory.free_bytes());
            answer!(total, device.memory.size());
            Ok(())
        })
    }

    /// A block of a device's memory.
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        on_device(|device, _| {
            let found = device.memory.allocate(bytes).ok_or(code::OUT_OF_MEMORY)?;
            answer!(address, found);
            Ok(())
        })
    }

    /// Gives it back, when all that may use it is done.
    fn cuMemFree_v2(address: u64) {
        on_device(|device, settings| {
            device.wait_for_all(settings)?;
            match device.memory.release(address) {
                true => Ok(()),
                false => Err(code::INVALID_VALUE),
            }
        })
    }

    /// Copies to a device.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, length: usize, stream: *mut c_void) {
        let (from, to) = (Place::Host(from as usize), Place::Device(to));
        on_device(|device, _| device.tell(stream_number(stream), Work::Copy { from, to, length }))
    }

    /// Copies from a device.
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, length: usize, stream: *mut c_void) {
        let (from, to) = (Place::Device(from), Place::Host(to as usize));
        on_device(|device, _| device.tell(stream_number(stream), Work::Copy { from, to, length }))
    }

    /// Fills memory with a byte.
    fn cuMemsetD8Async(to: u64, value: u8, length: usize, stream: *mut c_void) {
        on_device(|device, _| device.tell(stream_number(stream), Work::Set { to, value, length }))
    }

    /// A stream.
    fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) {
        on_device(|device, _| {
            answer!(stream, device.new_stream() as *mut c_void);
            Ok(())
        })
    }

    /// Ends a stream, once it has done what it was told.
    fn cuStreamDestroy_v2(stream: *mut c_void) {
        on_device(|device, settings| device.wait(stream_number(stream), settings))
    }

    /// Waits for a stream.
    fn cuStreamSynchronize(stream: *mut c_void) {
        on_device(|device, settings| device.wait(stream_number(stream), settings))
    }

    /// A moment that a stream reaches.
    fn cuEventCreate(event: *mut *mut c_void, _flags: c_uint) {
        on_device(|device, _| {
            answer!(event, handle(device.new_event()));
            Ok(())
        })
    }

    /// Takes the time when a stream gets here.
    fn cuEventRecord(event: *mut c_void, stream: *mut c_void) {
        on_device(|device, _| device.tell(stream_number(stream), Work::Record(number(event)?)))
    }

    /// Waits for the moment.
    fn cuEventSynchronize(_event: *mut c_void) {
        on_device(Device::wait_for_all)
    }

    /// Milliseconds between two moments.
    fn cuEventElapsedTime(milliseconds: *mut f32, start: *mut c_void, end: *mut c_void) {
        on_device(|device, _| {
            let (start, end) = (device.event(number(start)?)?, device.event(number(end)?)?);
            answer!(milliseconds, (end - start).as_secs_f32() * 1e3);
            Ok(())
        })
    }

    /// Forgets a moment.
    fn cuEventDestroy_v2(_event: *mut c_void) {
        0
    }

    /// Loads a kernel: the text of PTX that ends with a zero, or machine code as an ELF file.
    fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) {
        // SAFETY: the caller promises an image, which begins with these or is text.
        let is_code = unsafe { image.cast::<[u8; 4]>().read() } == *b"\x7fELF";
        let bytes = match is_code {
            // SAFETY: as above, of an ELF file; its header tells its length.
            true => unsafe {
                let length = Images::length_of_code(&*image.cast());
                std::slice::from_raw_parts(image.cast::<u8>(), length)
            },
            // SAFETY: as above, of text.
            false => unsafe { CStr::from_ptr(image.cast()) }.to_bytes(),
        };
        on_device(|device, settings| {
            answer!(module, handle(device.load(bytes, settings)?));
            Ok(())
        })
    }

    /// Forgets it.
    fn cuModuleUnload(module: *mut c_void) {
        on_device(|device, _| device.unload(number(module)?))
    }

    /// A kernel of a module by its name.
    fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const c_char) {
        // SAFETY: the caller promises a text.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        on_device(|device, _| {
            answer!(function, handle(device.function(number(module)?, &name)?));
            Ok(())
        })
    }

    /// Allows a kernel more shared memory (8); nothing else is known.
    fn cuFuncSetAttribute(function: *mut c_void, attribute: c_int, value: c_int) {
        on_device(|device, settings| match attribute {
            8 => {
                let most = most_shared(settings.capability);
                device.allow_shared(number(function)?, value as usize, most)
            }
            _ => Err(code::INVALID_VALUE),
        })
    }

    /// Runs a kernel.
    fn cuLaunchKernel(
        function: *mut c_void,
        x: c_uint,
        y: c_uint,
        z: c_uint,
        threads_x: c_uint,
        threads_y: c_uint,
        threads_z: c_uint,
        shared: c_uint,
        stream: *mut c_void,
        parameters: *mut *mut c_void,
        _extra: *mut *mut c_void
    ) {
        on_device(|device, _| {
            let function = number(function)?;
            let grid = Grid { blocks: [x, y, z], shared: shared as usize };
            device.check_launch(function, grid, threads_x * threads_y * threads_z)?;
            let sizes = device.parameters(function)?.into_iter().enumerate();
            let argument = |(i, size): (usize, usize)| {
                // SAFETY: the caller promises a pointer to each parameter, of its size.
                unsafe {
                    let place = *parameters.add(i);
                    match size {
                        8 => place.cast::<u64>().read_unaligned(),
                        _ => u64::from(place.cast::<u32>().read_unaligned()),
                    }
                }
            };
            let arguments = sizes.map(argument).collect();
            device.tell(stream_number(stream), Work::Launch { function, grid, arguments })
        })
    }

    /// An error's name.
    fn cuGetErrorName(error: c_int, name: *mut *const c_char) {
        let found = match error {
            code::INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
            code::OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
            code::NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
            code::INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
            code::NO_BINARY_FOR_GPU => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
            code::INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
            code::ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
            _ => c"CUDA_ERROR_UNKNOWN",
        };
        answer!(name, found.as_ptr())
    }
}

/// Bytes of shared memory that a block may have with leave, by compute capability.
///
/// Source: NVIDIA, CUDA C++ Programming Guide 13, "Technical Specifications per Compute Capability", less 1 KiB a block.
fn most_shared(capability: (i32, i32)) -> usize {
    let kib = match capability {
        (8, 0 | 7) => 163,
        (8, _) | (12, _) => 99,
        _ => 227,
    };
    kib << 10
}
