//! Buffers from some byte on, whose length is looked at before a kernel gets their address.

use crate::device::{
    Argument::{self, Address},
    Buffer,
};

/// Bytes of a half, and of a number that is whole or in f32.
const HALF: usize = 2;
const WORD: usize = 4;

/// A buffer from some byte on.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    buffer: &'a Buffer,
    offset: usize,
}

impl<'a> From<&'a Buffer> for View<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffer, offset: 0 }
    }
}

impl<'a> View<'a> {
    /// A buffer of words from number `i` on.
    pub(crate) fn of_words(buffer: &'a Buffer, i: usize) -> Self {
        let offset = i * WORD;
        Self { buffer, offset }
    }

    /// Its address, if there are so many bytes.
    ///
    /// # Panics
    /// When there are fewer.
    fn with(self, bytes: usize) -> Argument {
        let there = self.buffer.bytes().saturating_sub(self.offset);
        assert!(
            there >= bytes,
            "a kernel needs {bytes} bytes of a buffer of {there}"
        );
        Address(self.buffer.address() + self.offset as u64)
    }

    /// Its address, if there are so many halves.
    pub(super) fn halves(self, n: usize) -> Argument {
        self.with(n * HALF)
    }

    /// Its address, if there are so many words.
    pub(super) fn words(self, n: usize) -> Argument {
        self.with(n * WORD)
    }
}
