//! The memory of a device: what is not allocated cannot be touched, and what was not written is no number.

use std::{cell::Cell, collections::BTreeMap};

/// The first address of the first device: like a real one's addresses, and unlike the host's.
const BASE: u64 = 0x7000_0000_0000;
/// No device has more.
const PER_DEVICE: u64 = 1 << 40;
/// Blocks begin at a multiple of this, as the driver promises.
const ALIGNMENT: u64 = 256;

/// Blocks of memory, with room between them that nobody may touch.
pub struct Memory {
    base: u64,
    bytes: Vec<u8>,
    /// The length of each block, by its address.
    blocks: BTreeMap<u64, usize>,
    /// The block that was touched last: the next access is likely to be to it.
    last: Cell<(u64, usize)>,
    used: usize,
}

/// A number of no value, in every format that is a float.
const POISON: u8 = 0xff;

impl Memory {
    /// Memory of so many bytes, of the device of this number.
    #[must_use]
    pub fn new(device: usize, size: usize) -> Self {
        Self {
            base: BASE + device as u64 * PER_DEVICE,
            // Pages that nobody touches are not there.
            bytes: vec![0; size],
            blocks: BTreeMap::new(),
            last: Cell::new((0, 0)),
            used: 0,
        }
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Free memory, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.size() - self.used
    }

    /// A new block; none where there is no room.
    pub fn allocate(&mut self, length: usize) -> Option<u64> {
        let aligned = |end: u64| (end + ALIGNMENT).next_multiple_of(ALIGNMENT);
        let ends = self
            .blocks
            .iter()
            .map(|(start, n)| aligned(start + *n as u64));
        let starts = std::iter::once(self.base + ALIGNMENT).chain(ends);
        let limits = self
            .blocks
            .keys()
            .copied()
            .chain([self.base + self.size() as u64]);
        // The first gap that is large enough.
        let address = starts.zip(limits).find_map(|(start, limit)| {
            (start + length as u64 + ALIGNMENT <= limit).then_some(start)
        })?;
        self.blocks.insert(address, length);
        self.used += length;
        let at = self.place(address);
        self.bytes[at..at + length].fill(POISON);
        Some(address)
    }

    /// Gives a block back; whether there was one.
    pub fn release(&mut self, address: u64) -> bool {
        let length = self.blocks.remove(&address);
        self.last.set((0, 0));
        self.used -= length.unwrap_or(0);
        length.is_some()
    }

    /// Gives all back.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.last.set((0, 0));
        self.used = 0;
    }

    /// Bytes of one block, to read; none where they are not within one.
    #[must_use]
    pub fn get(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.is_within(address, length).then(|| {
            let at = self.place(address);
            &self.bytes[at..at + length]
        })
    }

    /// The same, to write.
    pub fn get_mut(&mut self, address: u64, length: usize) -> Option<&mut [u8]> {
        self.is_within(address, length).then(|| {
            let at = self.place(address);
            &mut self.bytes[at..at + length]
        })
    }

    fn is_within(&self, address: u64, length: usize) -> bool {
        let is_in = |(start, n): (u64, usize)| {
            address >= start && address + length as u64 <= start + n as u64
        };
        if is_in(self.last.get()) {
            return true;
        }
        let block = self.blocks.range(..=address).next_back();
        block.is_some_and(|(start, n)| {
            self.last.set((*start, *n));
            is_in((*start, *n))
        })
    }

    fn place(&self, address: u64) -> usize {
        usize::try_from(address - self.base).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allocated_can_be_touched_and_it_is_no_number_at_first() {
        let mut memory = Memory::new(0, 4096);
        let a = memory.allocate(100).unwrap();
        let b = memory.allocate(256).unwrap();
        assert!(a.is_multiple_of(256) && b.is_multiple_of(256));
        assert_eq!(memory.get(a, 100), Some(&[0xff; 100][..]));
        assert_eq!((memory.get(a, 101), memory.get(a - 1, 1)), (None, None));
        assert_eq!(memory.get(a + 100, 1), None, "between two blocks");
        assert_eq!(memory.free_bytes(), 4096 - 356);
        assert_eq!(memory.allocate(4096), None);
        assert!(memory.release(a) && !memory.release(a));
        assert_eq!(memory.get(a, 1), None);
        assert_eq!(memory.allocate(50), Some(a), "room is used again");
    }
}
