//! Instructions that read and write memory, or multiply what lies there.

use std::{array::from_fn, ops::Range};

use super::{Lanes, Longs, MOST_COPIED, SharedBytes, Surroundings, Warp, lanes, together};
use crate::{
    products::{self, Descriptor, TERMS, left, multiply, place},
    ptx::{Address, From, GroupProduct, Left, Register, Size, Space},
};

impl Warp<'_> {
    /// The place of each thread's access, which is aligned to its length.
    fn places(
        &self,
        space: Space,
        address: Address,
        length: usize,
    ) -> Result<impl Fn(usize) -> Result<u64, String> + use<>, String> {
        let base: Longs = match space {
            Space::Global => self.longs[address.base as usize],
            Space::Shared => self.words[address.base as usize].map(u64::from),
        };
        Ok(move |lane: usize| {
            let at = base[lane].wrapping_add_signed(address.offset);
            match at.is_multiple_of(length as u64) {
                true => Ok(at),
                false => Err(format!(
                    "an access to {at:#x} is not aligned to {length} bytes"
                )),
            }
        })
    }

    pub(super) fn load(
        &mut self,
        space: Space,
        size: Size,
        to: &[Register],
        from: Address,
        threads: u32,
        around: &Surroundings<'_>,
    ) -> Result<(), String> {
        let width = bytes_of(size);
        let length = width * to.len();
        let at = self.places(space, from, length)?;
        for lane in lanes(threads) {
            let at = at(lane)?;
            let bytes = match space {
                Space::Global => around.memory.get(at, length),
                Space::Shared => shared(around.shared, at, length),
            };
            let bytes = bytes.ok_or_else(|| outside("read", space, at))?;
            for (register, bytes) in to.iter().zip(bytes.chunks_exact(width)) {
                match size {
                    Size::Half => {
                        self.halves[*register as usize][lane] =
                            u16::from_le_bytes([bytes[0], bytes[1]]);
                    }
                    _ => {
                        self.words[*register as usize][lane] =
                            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        space: Space,
        size: Size,
        to: Address,
        from: &[From],
        threads: u32,
        around: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        let width = bytes_of(size);
        let length = width * from.len();
        let at = self.places(space, to, length)?;
        if size != Size::Word {
            return Err("only words are stored".into());
        }
        let values: Vec<Lanes> = from.iter().map(|from| self.word(*from)).collect();
        for lane in lanes(threads) {
            let at = at(lane)?;
            let bytes = match space {
                Space::Global => around.memory.get_mut(at, length),
                Space::Shared => shared_mut(around.shared, at, length),
            };
            let bytes = bytes.ok_or_else(|| outside("write", space, at))?;
            for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(width)) {
                bytes.copy_from_slice(&value[lane].to_le_bytes());
            }
        }
        Ok(())
    }

    pub(super) fn copy(
        &mut self,
        length: usize,
        [to, from]: [Address; 2],
        filled: Option<From>,
        threads: u32,
        around: &Surroundings<'_>,
    ) -> Result<(), String> {
        let to = self.places(Space::Shared, to, length)?;
        let from = self.places(Space::Global, from, length)?;
        let filled = filled.map(|n| self.word(n));
        for lane in lanes(threads) {
            let n = filled.map_or(length, |n| n[lane] as usize);
            let mut bytes = [0; MOST_COPIED];
            if n > 0 {
                let at = from(lane)?;
                let source = around.memory.get(at, n);
                bytes[..n]
                    .copy_from_slice(source.ok_or_else(|| outside("read", Space::Global, at))?);
            }
            let at = to(lane)?;
            shared(around.shared, at, length).ok_or_else(|| outside("write", Space::Shared, at))?;
            self.begun.push(SharedBytes {
                to: at as usize,
                bytes,
                length,
            });
        }
        Ok(())
    }

    /// Matrices of 8 x 8 halves: eight lanes after one another say where the rows of one lie.
    pub(super) fn load_matrices(
        &mut self,
        transposed: bool,
        to: &[Register],
        from: Address,
        threads: u32,
        memory: &[u8],
    ) -> Result<(), String> {
        together(threads)?;
        let at = self.places(Space::Shared, from, 16)?;
        for (j, register) in to.iter().enumerate() {
            let mut matrix = [[0_u16; 8]; 8];
            for (i, row) in matrix.iter_mut().enumerate() {
                let at = at(j * 8 + i)?;
                let bytes =
                    shared(memory, at, 16).ok_or_else(|| outside("read", Space::Shared, at))?;
                *row = from_fn(|c| u16::from_le_bytes([bytes[2 * c], bytes[2 * c + 1]]));
            }
            let half = |row: usize, column: usize| match transposed {
                true => matrix[column][row],
                false => matrix[row][column],
            };
            self.words[*register as usize] = from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                u32::from(half(row, column)) | u32::from(half(row, column + 1)) << 16
            });
        }
        Ok(())
    }

    /// This warp's 16 rows of a group's product. The result is there at once, as the compiler that reads PTX takes it; matrices in shared
    /// memory are looked at once more when the product is waited for.
    pub(super) fn group_product(
        &mut self,
        product: &GroupProduct,
        memory: &[u8],
    ) -> Result<Issued, String> {
        let format = product.format;
        let descriptor = |register: Register| {
            let found = Descriptor::new(self.longs[register as usize][0]);
            found.ok_or("a matrix of this form is not known")
        };
        let mut issued = Issued(Vec::new());
        let a = match &product.a {
            Left::Registers(registers) => left(registers.map(|r| self.words[r as usize]), format),
            Left::Shared {
                descriptor: register,
                transposed,
            } => {
                let first = self.number % 4 * products::ROWS;
                let rows = first..first + products::ROWS;
                let operand = Operand::read(descriptor(*register)?, rows, *transposed, memory)?;
                let mut a = [[0.0; TERMS]; products::ROWS];
                for (row, halves) in a.iter_mut().zip(&operand.halves) {
                    *row = products::to_floats(*halves, format);
                }
                issued.0.push(operand);
                a
            }
        };
        let columns = 0..product.n;
        let right = Operand::read(
            descriptor(product.b)?,
            columns,
            product.b_transposed,
            memory,
        )?;
        let adds = self.flag(product.adds) & 1 == 1;
        for (i, eight) in right.halves.chunks_exact(8).enumerate() {
            let mut b = [[0.0; 8]; TERMS];
            for (column, halves) in eight.iter().enumerate() {
                let terms = products::to_floats(*halves, format);
                for (row, x) in b.iter_mut().zip(terms) {
                    row[column] = x;
                }
            }
            let result = multiply(&a, &b);
            let registers = product.d.iter().enumerate().skip(i * 4).take(4);
            for (j, to) in registers {
                let before = self.words[*to as usize];
                self.words[*to as usize] = from_fn(|lane| {
                    let (row, at) = place(lane, j % 4);
                    let before = if adds {
                        f32::from_bits(before[lane])
                    } else {
                        0.0
                    };
                    (before + result[row][at]).to_bits()
                });
            }
        }
        issued.0.push(right);
        Ok(issued)
    }
}

/// The matrices in shared memory of a product that was begun.
pub(super) struct Issued(Vec<Operand>);

impl Issued {
    /// Fails where one has changed since the product was begun: it may not have been read yet.
    pub(super) fn check(&self, memory: &[u8]) -> Result<(), String> {
        for operand in &self.0 {
            let Operand {
                descriptor,
                rows,
                transposed,
                halves,
            } = operand;
            let now = Operand::read(*descriptor, rows.clone(), *transposed, memory)?;
            if now.halves != *halves {
                return Err("a matrix was overwritten before its product was waited for".into());
            }
        }
        Ok(())
    }
}

/// A matrix in shared memory, as it was read.
struct Operand {
    descriptor: Descriptor,
    rows: Range<usize>,
    transposed: bool,
    /// The terms of each row, or column of the right operand.
    halves: Vec<[u16; TERMS]>,
}

impl Operand {
    fn read(
        descriptor: Descriptor,
        rows: Range<usize>,
        transposed: bool,
        memory: &[u8],
    ) -> Result<Self, String> {
        let row = |row: usize| -> Result<[u16; TERMS], String> {
            let mut halves = [0; TERMS];
            for (term, half) in halves.iter_mut().enumerate() {
                let at = descriptor.place(row, term, transposed);
                let bytes = memory.get(at..at + 2);
                let bytes = bytes.ok_or_else(|| outside("read", Space::Shared, at as u64))?;
                *half = u16::from_le_bytes([bytes[0], bytes[1]]);
            }
            Ok(halves)
        };
        let halves = rows.clone().map(row).collect::<Result<_, _>>()?;
        Ok(Self {
            descriptor,
            rows,
            transposed,
            halves,
        })
    }
}

fn bytes_of(size: Size) -> usize {
    match size {
        Size::Flag | Size::Half => 2,
        Size::Word => 4,
        Size::Long => 8,
    }
}

fn shared(memory: &[u8], at: u64, length: usize) -> Option<&[u8]> {
    let at = usize::try_from(at).ok()?;
    memory.get(at..at.checked_add(length)?)
}

fn shared_mut(memory: &mut [u8], at: u64, length: usize) -> Option<&mut [u8]> {
    let at = usize::try_from(at).ok()?;
    memory.get_mut(at..at.checked_add(length)?)
}

fn outside(what: &str, space: Space, at: u64) -> String {
    match space {
        Space::Global => format!("a {what} outside of every block of memory, at {at:#x}"),
        Space::Shared => format!("a {what} outside of shared memory, at {at}"),
    }
}
