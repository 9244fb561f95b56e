//! Devices, on which the library's functions act, with their memory and streams, modules and kernels.

use std::{collections::VecDeque, path::PathBuf, time::Instant};

use crate::{
    images::{IMAGES, Shipped},
    launch::{Grid, launch},
    memory::Memory,
    ptx::Kernel,
    settings::Settings,
};

/// The errors of the driver that are played. Source: NVIDIA, CUDA Driver API, `CUresult`.
pub(crate) mod code {
    pub(crate) const INVALID_VALUE: i32 = 1;
    pub(crate) const OUT_OF_MEMORY: i32 = 2;
    pub(crate) const NO_DEVICE: i32 = 100;
    pub(crate) const INVALID_DEVICE: i32 = 101;
    pub(crate) const INVALID_CONTEXT: i32 = 201;
    pub(crate) const NO_BINARY_FOR_GPU: i32 = 209;
    pub(crate) const INVALID_PTX: i32 = 218;
    pub(crate) const INVALID_HANDLE: i32 = 400;
    pub(crate) const NOT_FOUND: i32 = 500;
    pub(crate) const ILLEGAL_ADDRESS: i32 = 700;
    pub(crate) const CONTEXT_IS_DESTROYED: i32 = 709;
}

/// An error of the driver, or none.
pub(crate) type Outcome<T = ()> = Result<T, i32>;

/// More shared memory than this needs leave.
const SHARED_WITHOUT_LEAVE: usize = 48 << 10;

pub(crate) struct Device {
    pub(crate) memory: Memory,
    /// An error that stays until the context is reset: every call gives it.
    error: Option<i32>,
    /// True if the context was asked for since it was reset.
    is_retained: bool,
    modules: Vec<Option<Module>>,
    functions: Vec<Function>,
    streams: Vec<VecDeque<Work>>,
    events: Vec<Option<Instant>>,
    launches: u64,
}

struct Module {
    kernel: Kernel,
}

struct Function {
    module: usize,
    most_shared: usize,
}

/// Work of a stream. Addresses of the host are of memory that lives until the stream was waited for.
pub(crate) enum Work {
    Copy {
        from: Place,
        to: Place,
        length: usize,
    },
    Set {
        to: u64,
        value: u8,
        length: usize,
    },
    Launch {
        function: usize,
        grid: Grid,
        arguments: Vec<u64>,
    },
    Record(usize),
}

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Host(usize),
    Device(u64),
}

impl Device {
    pub(crate) fn new(number: usize, settings: &Settings) -> Self {
        Self {
            memory: Memory::new(number, settings.memory),
            error: None,
            is_retained: false,
            modules: Vec::new(),
            functions: Vec::new(),
            // The first is the default one.
            streams: vec![VecDeque::new()],
            events: Vec::new(),
            launches: 0,
        }
    }

    /// Nothing is done once there was an error, nor in a context that was ended.
    pub(crate) fn check(&self) -> Outcome {
        match self.error {
            Some(error) => Err(error),
            None if !self.is_retained => Err(code::CONTEXT_IS_DESTROYED),
            None => Ok(()),
        }
    }

    /// Begins to use the context.
    pub(crate) fn retain(&mut self) -> Outcome {
        self.error.map_or(Ok(()), Err)?;
        self.is_retained = true;
        Ok(())
    }

    /// All that there was is gone, an error too.
    pub(crate) fn reset(&mut self) {
        self.memory.clear();
        (self.error, self.is_retained) = (None, false);
        self.modules.clear();
        self.functions.clear();
        self.streams = vec![VecDeque::new()];
        self.events.clear();
    }

    pub(crate) fn load(&mut self, image: &[u8], settings: &Settings) -> Outcome<usize> {
        let shipped = IMAGES.find(image);
        let is_code = image.starts_with(b"\x7fELF");
        if is_code && (settings.code_refused || shipped.is_none_or(|s| !runs_code(s, settings))) {
            return Err(code::NO_BINARY_FOR_GPU);
        }
        let source = match shipped {
            Some(shipped) => shipped.ptx.clone(),
            None => String::from_utf8(image.to_vec()).map_err(|_| code::INVALID_PTX)?,
        };
        if !is_code && !runs_ptx(&source, settings) {
            return Err(code::INVALID_PTX);
        }
        let source = match (&settings.mutant, shipped) {
            (Some((kernel, mutation)), Some(shipped)) if shipped.name.starts_with(kernel) => {
                mutation.apply(&source)
            }
            _ => source,
        };
        let kernel = Kernel::parse(&source).map_err(|error| {
            say(&error.to_string());
            code::INVALID_PTX
        })?;
        self.modules.push(Some(Module { kernel }));
        Ok(self.modules.len() - 1)
    }

    pub(crate) fn unload(&mut self, module: usize) -> Outcome {
        let slot = self.modules.get_mut(module).ok_or(code::INVALID_HANDLE)?;
        slot.take().map(|_| ()).ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn function(&mut self, module: usize, name: &str) -> Outcome<usize> {
        let found = self.modules.get(module).and_then(Option::as_ref);
        let found = found.ok_or(code::INVALID_HANDLE)?;
        if found.kernel.name != name {
            return Err(code::NOT_FOUND);
        }
        self.functions.push(Function {
            module,
            most_shared: SHARED_WITHOUT_LEAVE,
        });
        Ok(self.functions.len() - 1)
    }

    pub(crate) fn allow_shared(&mut self, function: usize, bytes: usize, most: usize) -> Outcome {
        if bytes > most {
            return Err(code::INVALID_VALUE);
        }
        let function = self
            .functions
            .get_mut(function)
            .ok_or(code::INVALID_HANDLE)?;
        function.most_shared = bytes;
        Ok(())
    }

    /// The sizes of a function's parameters.
    pub(crate) fn parameters(&self, function: usize) -> Outcome<Vec<usize>> {
        self.kernel(function)
            .map(|kernel| kernel.parameters.clone())
    }

    fn kernel(&self, function: usize) -> Outcome<&Kernel> {
        let function = self.functions.get(function).ok_or(code::INVALID_HANDLE)?;
        let module = self.modules[function.module].as_ref();
        module
            .map(|module| &module.kernel)
            .ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn check_launch(&self, function: usize, grid: Grid, threads: u32) -> Outcome {
        let kernel = self.kernel(function)?;
        let [x, y, z] = grid.blocks;
        let is_empty = x == 0 || y == 0 || z == 0 || y > 65_535 || z > 65_535;
        let most = self.functions[function].most_shared;
        if is_empty || kernel.threads != threads || grid.shared > most {
            say(&format!(
                "a launch of {} with {grid:?} and {threads} threads of {} is not allowed",
                kernel.name, kernel.threads
            ));
            return Err(code::INVALID_VALUE);
        }
        Ok(())
    }

    pub(crate) fn new_stream(&mut self) -> usize {
        self.streams.push(VecDeque::new());
        self.streams.len() - 1
    }

    pub(crate) fn new_event(&mut self) -> usize {
        self.events.push(None);
        self.events.len() - 1
    }

    pub(crate) fn event(&self, event: usize) -> Outcome<Instant> {
        let found = self.events.get(event).copied().flatten();
        found.ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn tell(&mut self, stream: usize, work: Work) -> Outcome {
        let stream = self.streams.get_mut(stream).ok_or(code::INVALID_HANDLE)?;
        stream.push_back(work);
        Ok(())
    }

    /// Does all that a stream was told.
    pub(crate) fn wait(&mut self, stream: usize, settings: &Settings) -> Outcome {
        loop {
            let queue = self.streams.get_mut(stream).ok_or(code::INVALID_HANDLE)?;
            let Some(work) = queue.pop_front() else {
                return Ok(());
            };
            if let Err(problem) = self.work(work, settings) {
                say(&problem);
                self.error = Some(code::ILLEGAL_ADDRESS);
                return Err(code::ILLEGAL_ADDRESS);
            }
        }
    }

    /// Does all that every stream was told.
    pub(crate) fn wait_for_all(&mut self, settings: &Settings) -> Outcome {
        (0..self.streams.len()).try_for_each(|stream| self.wait(stream, settings))
    }

    fn work(&mut self, work: Work, settings: &Settings) -> Result<(), String> {
        match work {
            Work::Copy { from, to, length } => self.copy(from, to, length),
            Work::Set { to, value, length } => {
                let bytes = self.memory.get_mut(to, length);
                bytes.ok_or("memory is set that is not there")?.fill(value);
                Ok(())
            }
            Work::Launch {
                function,
                grid,
                arguments,
            } => {
                let number = self.launches;
                self.launches += 1;
                let is_asked = |file: &PathBuf| std::fs::remove_file(file).is_ok();
                if settings.fault == Some(number)
                    || settings.fault_file.as_ref().is_some_and(is_asked)
                {
                    return Err(format!(
                        "launch {number} ends in the fault that was asked for"
                    ));
                }
                let module = self.functions[function].module;
                let module = self.modules[module].as_ref().ok_or("the module is gone")?;
                launch(&module.kernel, grid, &arguments, &mut self.memory, number)
            }
            Work::Record(event) => {
                self.events[event] = Some(Instant::now());
                Ok(())
            }
        }
    }

    fn copy(&mut self, from: Place, to: Place, length: usize) -> Result<(), String> {
        let missing = "memory is copied that is not there";
        match (from, to) {
            (Place::Host(from), Place::Device(to)) => {
                let to = self.memory.get_mut(to, length).ok_or(missing)?;
                #[expect(
                    unsafe_code,
                    reason = "the driver's functions are given bare addresses"
                )]
                // SAFETY: the caller promises the driver that the memory is there until the stream was waited for.
                let from = unsafe { std::slice::from_raw_parts(from as *const u8, length) };
                to.copy_from_slice(from);
            }
            (Place::Device(from), Place::Host(to)) => {
                let from = self.memory.get(from, length).ok_or(missing)?;
                #[expect(
                    unsafe_code,
                    reason = "the driver's functions are given bare addresses"
                )]
                // SAFETY: as above; nobody else reads or writes it meanwhile.
                let to = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, length) };
                to.copy_from_slice(from);
            }
            _ => return Err("no such copy is known".into()),
        }
        Ok(())
    }
}

fn runs_code(shipped: &Shipped, settings: &Settings) -> bool {
    let (major, minor) = settings.capability;
    match shipped.architecture {
        // Code for one minor version runs on later ones of the same major version.
        80 => major == 8,
        // Code of the architecture 9.0a runs there alone.
        _ => (major, minor) == (9, 0),
    }
}

fn runs_ptx(source: &str, settings: &Settings) -> bool {
    match source.contains(".target sm_90a") {
        true => settings.capability == (9, 0),
        false => settings.capability.0 >= 8,
    }
}

/// Says a problem to who reads the log of a test.
#[expect(clippy::print_stderr, reason = "a driver has no log of its own")]
fn say(problem: &str) {
    eprintln!("cuda simulator: {problem}");
}
