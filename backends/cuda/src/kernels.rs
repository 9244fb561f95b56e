//! The kernels that a model needs, loaded on its device: of each the fastest variant that gives right results there.

use std::sync::Arc;

use crate::{
    device::{Device, Entry, Kernel, Stream},
    error::DriverError,
    format::Format,
    library::{Library, Shipped},
    selftest::{self, Extent, Rejection},
};

/// Loads kernels.
pub(crate) struct Kernels<'a> {
    library: &'a Library,
    stream: &'a Stream,
    format: Format,
    extent: Extent,
}

/// A kernel with what was fixed when it was compiled.
#[derive(Debug)]
pub(crate) struct Loaded<const N: usize> {
    pub(crate) kernel: Kernel,
    /// Sizes of its tiles.
    pub(crate) tile: [usize; N],
}

impl<'a> Kernels<'a> {
    /// `extent`: how much of each kernel is tried before it is used.
    pub(crate) fn new(
        library: &'a Library,
        stream: &'a Stream,
        format: Format,
        extent: Extent,
    ) -> Self {
        Self {
            library,
            stream,
            format,
            extent,
        }
    }

    /// The device that kernels are loaded on.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.stream.device()
    }

    /// The stream that tries them.
    pub(crate) fn stream(&self) -> &Stream {
        self.stream
    }

    /// The format of weights and rows.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Loads the kernels of a kind that are wanted and right, in the order of the table.
    ///
    /// # Errors
    /// When none is.
    pub(crate) fn all<const N: usize>(
        &self,
        kind: &str,
        is_wanted: impl Fn(&Shipped) -> bool,
        tile: [&str; N],
    ) -> Result<Vec<Loaded<N>>, DriverError> {
        let wanted = self
            .library
            .of(kind, self.format)
            .filter(|shipped| is_wanted(shipped));
        let (mut loaded, mut last_error) = (Vec::new(), None);
        for shipped in wanted {
            match self.load(&shipped.name) {
                Ok(kernel) => loaded.push(Loaded {
                    kernel,
                    tile: tile.map(|name| shipped.constant(name)),
                }),
                Err(error @ DriverError::Wrong { .. }) => last_error = Some(error),
                Err(error) => return Err(error),
            }
        }
        match last_error {
            Some(error) if loaded.is_empty() => Err(error),
            _ => Ok(loaded),
        }
    }

    /// The first of a kind that is wanted.
    ///
    /// # Panics
    /// When there is none: callers ask for what ships.
    pub(crate) fn one(
        &self,
        kind: &str,
        is_wanted: impl Fn(&Shipped) -> bool,
    ) -> Result<Kernel, DriverError> {
        let mut wanted = self
            .library
            .of(kind, self.format)
            .filter(|shipped| is_wanted(shipped));
        #[expect(clippy::expect_used, reason = "callers ask for what ships")]
        self.load(&wanted.next().expect("a kernel of each kind").name)
    }

    /// The fastest variant of a kernel that gives right results.
    fn load(&self, name: &str) -> Result<Kernel, DriverError> {
        let device = self.device();
        let mut reason = "there is none for this card".to_owned();
        for variant in self.library.variants(name, device.capability) {
            let entry = Entry::of(variant.shipped);
            let tested = Kernel::load(device, variant.image, entry)
                .map_err(Rejection::Driver)
                .and_then(|kernel| {
                    selftest::run(self.stream, &kernel, variant.shipped, self.extent)?;
                    Ok(kernel)
                });
            reason = match tested {
                Ok(kernel) => return Ok(kernel),
                Err(Rejection::Wrong(reason)) => reason,
                // Nothing works any more on the device, or there is no memory: other variants would do no better.
                Err(Rejection::Driver(error)) if error.is_lasting() || error.is_out_of_memory() => {
                    return Err(error);
                }
                Err(Rejection::Driver(error)) => error.to_string(),
            };
            tracing::warn!(
                "the kernel {name} ({}) is not used on {}: {reason}",
                variant.what,
                device.name
            );
        }
        Err(DriverError::Wrong {
            kernel: name.to_owned(),
            device: device.name.clone(),
            reason,
        })
    }
}
