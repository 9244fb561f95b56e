//! Memory on a boundary of cache lines, as the library likes it best.

use super::ffi::Handle;

/// Memory on a boundary of cache lines.
#[derive(Default)]
pub(super) struct Aligned(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(align(64))]
#[expect(dead_code, reason = "only its size and place matter")]
struct Line([u8; 64]);

impl Aligned {
    /// Makes room for so many bytes, without changing those that are there.
    pub(super) fn grow(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
    }

    /// Returns the size of the memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Line>()
    }

    /// To read from.
    pub(super) fn pointer(&self) -> Handle {
        self.0.as_ptr().cast_mut().cast()
    }

    /// To write to.
    pub(super) fn pointer_mut(&mut self) -> Handle {
        self.0.as_mut_ptr().cast()
    }
}
