//! The kernels that ship: machine code is known by its bytes, and what it was made of is run in its place.

use std::{collections::HashMap, sync::LazyLock};

use serde::Deserialize;

static TABLE: &str = include_str!("../../../backends/cuda/kernels/built/table.json");
static PACKED: &[u8] = include_bytes!("../../../backends/cuda/kernels/built/images.zst");

#[derive(Deserialize)]
struct Table {
    kernels: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    architecture: i32,
    ptx: (usize, usize),
    code: (usize, usize),
}

/// A kernel that ships.
pub(crate) struct Shipped {
    /// Its name in the table.
    pub(crate) name: String,
    /// The compute capability that it was made for, times ten.
    pub(crate) architecture: i32,
    /// Its PTX, without the zero at the end.
    pub(crate) ptx: String,
}

/// Those that ship, by their PTX and by their machine code.
pub(crate) struct Images {
    by_bytes: HashMap<Vec<u8>, usize>,
    all: Vec<Shipped>,
}

/// All of them.
pub(crate) static IMAGES: LazyLock<Images> = LazyLock::new(Images::read);

impl Images {
    #[expect(clippy::expect_used, reason = "what is checked in can be read")]
    fn read() -> Self {
        let table: Table = serde_json::from_str(TABLE).expect("a table");
        let data = zstd::decode_all(PACKED).expect("packed images");
        let mut images = Self {
            by_bytes: HashMap::new(),
            all: Vec::new(),
        };
        for entry in table.kernels {
            let of = |(start, length): (usize, usize)| data[start..start + length].to_vec();
            let (mut ptx, code) = (of(entry.ptx), of(entry.code));
            ptx.pop();
            let i = images.all.len();
            images.by_bytes.insert(code, i);
            images.by_bytes.insert(ptx.clone(), i);
            images.all.push(Shipped {
                name: entry.name,
                architecture: entry.architecture,
                ptx: String::from_utf8(ptx).expect("text"),
            });
        }
        images
    }

    /// The kernel of these bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<&Shipped> {
        self.by_bytes.get(bytes).map(|i| &self.all[*i])
    }

    /// The length of an ELF file of machine code, which its header tells: only a pointer is known of an image.
    pub(crate) fn length_of_code(header: &[u8; 64]) -> usize {
        let number = |at: usize, n: usize| {
            header[at..at + n]
                .iter()
                .rev()
                .fold(0_usize, |all, byte| all << 8 | usize::from(*byte))
        };
        // Where the program headers or the section headers end, whichever lie last.
        let sections = number(40, 8) + number(58, 2) * number(60, 2);
        let programs = number(32, 8) + number(54, 2) * number(56, 2);
        sections.max(programs)
    }
}
