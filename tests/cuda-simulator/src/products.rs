//! Products of small matrices, as a warp's or a group of warps' instructions do them.
//!
//! Which number of a matrix lies in which register of which lane: NVIDIA, Parallel Thread Execution ISA 8.0, "Matrix Fragments for
//! mma.m16n8k16" and "Asynchronous Warpgroup Level Matrix Instructions".

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{
    ptx::HalfFormat,
    warp::{LANES, Lanes},
};

/// Terms of a product's sums.
pub(crate) const TERMS: usize = 16;
/// Rows of a warp's part of a product.
pub(crate) const ROWS: usize = 16;

pub(crate) fn to_half(number: f32, format: HalfFormat) -> u16 {
    match format {
        HalfFormat::F16 => f16::from_f32(number).to_bits(),
        HalfFormat::Bf16 => bf16::from_f32(number).to_bits(),
    }
}

/// The numbers of halves.
pub(crate) fn to_floats<const N: usize>(halves: [u16; N], format: HalfFormat) -> [f32; N] {
    let mut floats = [0.0; N];
    match format {
        HalfFormat::F16 => halves.map(f16::from_bits).convert_to_f32_slice(&mut floats),
        HalfFormat::Bf16 => halves
            .map(bf16::from_bits)
            .convert_to_f32_slice(&mut floats),
    }
    floats
}

/// The low and the high halves of a register of all lanes.
fn pairs(register: Lanes, format: HalfFormat) -> [[f32; LANES]; 2] {
    [0, 16].map(|shift| to_floats(register.map(|bits| (bits >> shift) as u16), format))
}

/// A matrix of 16 x 16 that lies in four registers of each lane.
pub(crate) fn left(registers: [Lanes; 4], format: HalfFormat) -> [[f32; TERMS]; ROWS] {
    let mut a = [[0.0; TERMS]; ROWS];
    for (j, register) in registers.into_iter().enumerate() {
        let [low, high] = pairs(register, format);
        for lane in 0..LANES {
            let (row, column) = (lane / 4 + 8 * (j % 2), lane % 4 * 2 + 8 * (j / 2));
            a[row][column] = low[lane];
            a[row][column + 1] = high[lane];
        }
    }
    a
}

/// A matrix of 16 x 8 that lies in two registers of each lane.
pub(crate) fn right(registers: [Lanes; 2], format: HalfFormat) -> [[f32; 8]; TERMS] {
    let mut b = [[0.0; 8]; TERMS];
    for (j, register) in registers.into_iter().enumerate() {
        let [low, high] = pairs(register, format);
        for lane in 0..LANES {
            let (row, column) = (lane % 4 * 2 + 8 * j, lane / 4);
            b[row][column] = low[lane];
            b[row + 1][column] = high[lane];
        }
    }
    b
}

/// Row and column of a lane's number in register `j` of a result.
pub(crate) fn place(lane: usize, j: usize) -> (usize, usize) {
    (lane / 4 + 8 * (j % 4 / 2), j / 4 * 8 + lane % 4 * 2 + j % 2)
}

/// `a b`, with sums of so many columns at once.
pub(crate) fn multiply<const N: usize>(
    a: &[[f32; TERMS]; ROWS],
    b: &[[f32; N]; TERMS],
) -> [[f32; N]; ROWS] {
    let mut d = [[0.0; N]; ROWS];
    for (row, sums) in a.iter().zip(&mut d) {
        for (x, terms) in row.iter().zip(b) {
            for (sum, y) in sums.iter_mut().zip(terms) {
                *sum += x * y;
            }
        }
    }
    d
}

/// The layout of a matrix in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Descriptor {
    start: usize,
    leading: usize,
    stride: usize,
    /// Bytes of a row of a swizzled atom, and the bits of an address that are changed.
    width: usize,
    swizzle: usize,
}

impl Descriptor {
    /// Source: PTX ISA 8.0, "Matrix Descriptor Format": each in units of 16 bytes. Unswizzled matrices are not known here.
    pub(crate) fn new(bits: u64) -> Option<Self> {
        let field = |shift: u32| ((bits >> shift & 0x3fff) * 16) as usize;
        let (width, swizzle) = match bits >> 62 {
            1 => (128, 7),
            2 => (64, 3),
            3 => (32, 1),
            _ => return None,
        };
        Some(Self {
            start: field(0),
            leading: field(16),
            stride: field(32),
            width,
            swizzle,
        })
    }

    /// The byte at which a number begins: of a row (or column of the right operand) and a term. Transposed matrices lie with
    /// rows side by side.
    pub(crate) fn place(self, row: usize, term: usize, transposed: bool) -> usize {
        let within = match transposed {
            true => {
                let a_line = self.width / 2;
                term / 8 * self.stride
                    + term % 8 * self.width
                    + row % a_line * 2
                    + row / a_line * self.leading
            }
            false => row / 8 * self.stride + row % 8 * self.width + term * 2,
        };
        let at = self.start + within;
        at ^ ((at >> 7 & self.swizzle) << 4)
    }
}
