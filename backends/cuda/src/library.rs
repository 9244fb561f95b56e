//! The kernels that ship: made by `kernels/compile.py`, checked in, and part of the program.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Format;

static TABLE: &str = include_str!("../kernels/built/table.json");
static PACKED: &[u8] = include_bytes!("../kernels/built/images.zst");

/// All kernels, unpacked. It is read for a load, and dropped afterwards.
pub(crate) struct Library {
    images: Vec<u8>,
    entries: Vec<Shipped>,
}

#[derive(Deserialize)]
struct Table {
    /// A hash of the sources.
    sources: String,
    kernels: Vec<Shipped>,
}

impl Table {
    #[expect(
        clippy::expect_used,
        reason = "what is part of the program can be read"
    )]
    fn read() -> Self {
        serde_json::from_str(TABLE).expect("a table of kernels")
    }
}

/// A kernel for one architecture.
#[derive(Debug, Deserialize)]
pub(crate) struct Shipped {
    pub(crate) name: String,
    /// The function that it was made of.
    pub(crate) kind: String,
    pub(crate) format: Format,
    /// Constants of its compilation, such as the size of a tile.
    pub(crate) constants: BTreeMap<String, usize>,
    /// The compute capability, times ten.
    pub(crate) architecture: i32,
    pub(crate) entry: String,
    pub(crate) shared: u32,
    pub(crate) threads: u32,
    /// Begin and length of its images.
    ptx: (usize, usize),
    code: (usize, usize),
}

impl Shipped {
    /// Returns a constant of its compilation; 0 where it has no such.
    pub(crate) fn constant(&self, name: &str) -> usize {
        self.constants.get(name).copied().unwrap_or(0)
    }
}

/// A form of a kernel that a device takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant<'a> {
    pub(crate) shipped: &'a Shipped,
    pub(crate) image: &'a [u8],
    /// Such as `machine code for 9.0a`.
    pub(crate) what: &'static str,
}

impl Library {
    /// Unpacks what ships.
    ///
    /// # Panics
    /// Never: it was packed by the script beside it, and tests read it.
    #[expect(
        clippy::expect_used,
        reason = "what is part of the program can be read"
    )]
    pub(crate) fn read() -> Self {
        Self {
            images: zstd::decode_all(PACKED).expect("packed kernels"),
            entries: Table::read().kernels,
        }
    }

    /// Names the sources that the kernels were made of.
    ///
    /// # Panics
    /// Never: as for [`Library::read`].
    pub(crate) fn sources() -> String {
        Table::read().sources
    }

    /// The kernels, each once.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let once = self.entries.iter().filter(|entry| entry.architecture == 80);
        once.map(|entry| entry.name.as_str())
    }

    /// The kernels of a kind in a format, each once.
    pub(crate) fn of(&self, kind: &str, format: Format) -> impl Iterator<Item = &Shipped> {
        let is_it = move |e: &&Shipped| (e.architecture, e.format) == (80, format);
        self.entries
            .iter()
            .filter(is_it)
            .filter(move |e| e.kind == kind)
    }

    /// The forms of a kernel that a device of this compute capability takes, the fastest first.
    pub(crate) fn variants(&self, name: &str, capability: (i32, i32)) -> Vec<Variant<'_>> {
        let of = |architecture, what, is_code: bool| {
            let found = self
                .entries
                .iter()
                .find(|e| e.name == name && e.architecture == architecture);
            found.map(|shipped| {
                let (start, length) = if is_code { shipped.code } else { shipped.ptx };
                Variant {
                    shipped,
                    image: &self.images[start..start + length],
                    what,
                }
            })
        };
        let (hopper, ampere) = (capability == (9, 0), capability.0 == 8);
        let all = [
            hopper.then(|| of(90, "machine code for 9.0", true)),
            hopper.then(|| of(90, "PTX for 9.0", false)),
            ampere.then(|| of(80, "machine code for 8.0", true)),
            Some(of(80, "PTX for 8.0", false)),
        ];
        all.into_iter().flatten().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_there_for_every_card() {
        let library = Library::read();
        let count = |capability| {
            let one = |e: &Shipped| library.variants(&e.name, capability).len();
            let mut counts: Vec<usize> = library.entries.iter().map(one).collect();
            counts.dedup();
            counts
        };
        assert_eq!(count((8, 0)), [2]);
        assert_eq!(count((8, 9)), [2]);
        assert_eq!(count((9, 0)), [3]);
        assert_eq!(count((12, 0)), [1]);
        for entry in &library.entries {
            let variants = library.variants(&entry.name, (9, 0));
            assert!(variants[0].image.starts_with(b"\x7fELF"), "{}", entry.name);
            let text = variants[1].image;
            assert_eq!(
                text.iter().position(|byte| *byte == 0),
                Some(text.len() - 1)
            );
        }
    }
}
