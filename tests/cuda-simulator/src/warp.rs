//! One warp: 32 threads that run the same instruction where they are at the same place.

mod access;

use std::array::from_fn;

use half::bf16;

use self::access::Issued;
use crate::{
    memory::Memory,
    products::{self, left, multiply, place, right, to_half},
    ptx::{
        Comparison, Conversion, Float, From, Function, HalfFormat, Instruction, Integer, Kernel,
        Op, Register, Size, Special,
    },
};

/// Threads of a warp.
pub(crate) const LANES: usize = 32;

/// A register of every thread.
pub(crate) type Lanes = [u32; LANES];
type Longs = [u64; LANES];

/// All threads.
const ALL: u32 = u32::MAX;

/// A warp and its registers.
pub(crate) struct Warp<'a> {
    kernel: &'a Kernel,
    arguments: &'a [u64],
    /// Its number in its block.
    number: usize,
    block: [u32; 3],
    flags: Vec<u32>,
    halves: Vec<[u16; LANES]>,
    words: Vec<Lanes>,
    longs: Vec<Longs>,
    at: usize,
    /// Threads that are at `at`.
    here: u32,
    /// Threads that wait at a place further on.
    elsewhere: Vec<(usize, u32)>,
    /// Copies to shared memory that were begun: they arrive when they are waited for, no sooner.
    copies: Vec<Vec<SharedBytes>>,
    begun: Vec<SharedBytes>,
    /// Products that were begun: what they read must stay until they are waited for.
    products: Vec<Vec<Issued>>,
    begun_products: Vec<Issued>,
}

/// Bytes on their way to a place in shared memory.
struct SharedBytes {
    to: usize,
    bytes: [u8; MOST_COPIED],
    length: usize,
}

/// The most bytes that a thread copies at once.
const MOST_COPIED: usize = 16;

/// Memory that the threads of a block share.
pub(crate) struct Surroundings<'a> {
    pub(crate) memory: &'a mut Memory,
    pub(crate) shared: &'a mut [u8],
}

/// A place at which a warp rests.
#[derive(PartialEq, Eq)]
pub(crate) enum Rest {
    Barrier,
    End,
}

impl<'a> Warp<'a> {
    pub(crate) fn new(
        kernel: &'a Kernel,
        arguments: &'a [u64],
        number: usize,
        block: [u32; 3],
    ) -> Self {
        Self {
            kernel,
            arguments,
            number,
            block,
            flags: vec![0; kernel.registers.flags],
            halves: vec![[0; LANES]; kernel.registers.halves],
            words: vec![[0; LANES]; kernel.registers.words],
            longs: vec![[0; LANES]; kernel.registers.longs],
            at: 0,
            here: ALL,
            elsewhere: Vec::new(),
            copies: Vec::new(),
            begun: Vec::new(),
            products: Vec::new(),
            begun_products: Vec::new(),
        }
    }

    /// Runs to the next barrier, or to the end.
    ///
    /// # Errors
    /// The fault of an instruction, with its text.
    pub(crate) fn run(&mut self, around: &mut Surroundings<'_>) -> Result<Rest, String> {
        let kernel = self.kernel;
        loop {
            self.meet();
            if self.here == 0 {
                return Ok(Rest::End);
            }
            let instruction = kernel.code.get(self.at).ok_or("the kernel has no end")?;
            self.at += 1;
            if matches!(instruction.op, Op::Barrier) {
                if !self.elsewhere.is_empty() || instruction.guard.is_some() {
                    return Err("some threads of a warp are not at the barrier".into());
                }
                return Ok(Rest::Barrier);
            }
            let threads = self.here & self.guarded(instruction);
            if threads == 0 {
                continue;
            }
            self.step(&instruction.op, threads, around)
                .map_err(|problem| format!("{problem} in: {}", instruction.text))?;
        }
    }

    /// Goes on with the threads that are furthest behind, and joins those that are at one place.
    fn meet(&mut self) {
        while let Some(i) = (0..self.elsewhere.len()).min_by_key(|i| self.elsewhere[*i].0) {
            let (at, threads) = self.elsewhere[i];
            if self.here != 0 && at > self.at {
                return;
            }
            if self.here == 0 || at == self.at {
                self.elsewhere.swap_remove(i);
                (self.at, self.here) = (at, self.here | threads);
            } else {
                self.elsewhere[i] = (self.at, self.here);
                (self.at, self.here) = (at, threads);
            }
        }
    }

    fn guarded(&self, instruction: &Instruction) -> u32 {
        match instruction.guard {
            None => ALL,
            Some((flag, true)) => self.flags[flag as usize],
            Some((flag, false)) => !self.flags[flag as usize],
        }
    }

    fn step(
        &mut self,
        op: &'a Op,
        threads: u32,
        around: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        match op {
            Op::Nothing | Op::Barrier => {}
            Op::Return => self.here &= !threads,
            Op::Branch(target) => {
                let stay = self.here & !threads;
                if stay != 0 {
                    self.elsewhere.push((self.at, stay));
                }
                (self.at, self.here) = (*target, threads);
            }
            Op::Move { size, to, from } => self.move_(*size, *to, *from, threads),
            Op::Split { low, high, from } => {
                let from = self.word(*from);
                self.set_half(*low, from.map(|x| x as u16), threads);
                self.set_half(*high, from.map(|x| (x >> 16) as u16), threads);
            }
            Op::Join { to, low, high } => {
                let (low, high) = (self.half(*low), self.half(*high));
                let value = from_fn(|i| u32::from(low[i]) | u32::from(high[i]) << 16);
                self.set_word(*to, value, threads);
            }
            Op::Special { to, from } => {
                let value = match from {
                    Special::Thread => from_fn(|i| (self.number * LANES + i) as u32),
                    Special::Block(axis) => [self.block[*axis]; LANES],
                };
                self.set_word(*to, value, threads);
            }
            Op::Parameter {
                index,
                to,
                to_size,
                signed,
            } => {
                let value = self.arguments[*index];
                match to_size {
                    Size::Long if *signed => {
                        self.set_long(*to, [value as u32 as i32 as u64; LANES], threads);
                    }
                    Size::Long => self.set_long(*to, [value; LANES], threads),
                    _ => self.set_word(*to, [value as u32; LANES], threads),
                }
            }
            Op::Integer {
                what,
                size,
                signed,
                to,
                a,
                b,
            } => self.integer(*what, *size, *signed, *to, [*a, *b], threads)?,
            Op::AndFlags { to, a, b } => {
                let value = self.flag(*a) & self.flag(*b);
                self.set_flag(*to, value, threads);
            }
            Op::MultiplyAdd { to, a, b, c } => {
                let (a, b, c) = (self.word(*a), self.word(*b), self.word(*c));
                let value = from_fn(|i| a[i].wrapping_mul(b[i]).wrapping_add(c[i]));
                self.set_word(*to, value, threads);
            }
            Op::Wide {
                signed,
                to,
                a,
                b,
                c,
            } => {
                let (a, b, c) = (self.word(*a), self.word(*b), self.long(*c));
                let product = |i: usize| match signed {
                    true => (i64::from(a[i] as i32) * i64::from(b[i] as i32)) as u64,
                    false => u64::from(a[i]) * u64::from(b[i]),
                };
                self.set_long(*to, from_fn(|i| product(i).wrapping_add(c[i])), threads);
            }
            Op::Bits {
                signed,
                to,
                a,
                position,
                length,
            } => {
                let a = self.word(*a);
                let left = 32 - position - length;
                let value = from_fn(|i| match signed {
                    true => ((a[i] << left) as i32 >> (32 - length)) as u32,
                    false => a[i] << left >> (32 - length),
                });
                self.set_word(*to, value, threads);
            }
            Op::Float { what, to, a, b } => {
                let (a, b) = (self.word(*a), self.word(*b));
                let of = |f: fn(f32, f32) -> f32| {
                    from_fn(|i| f(f32::from_bits(a[i]), f32::from_bits(b[i])).to_bits())
                };
                let value = match what {
                    Float::Add => of(|a, b| a + b),
                    Float::Sub => of(|a, b| a - b),
                    Float::Mul => of(|a, b| a * b),
                    Float::Div => of(|a, b| a / b),
                    Float::Max => of(f32::max),
                    Float::MaxOrNan => of(|a, b| match a.is_nan() || b.is_nan() {
                        true => f32::NAN,
                        false => a.max(b),
                    }),
                };
                self.set_word(*to, value, threads);
            }
            Op::Fma { to, a, b, c } => {
                let [a, b, c] = [*a, *b, *c].map(|x| self.word(x).map(f32::from_bits));
                // Products of f32 are exact in f64.
                let one = |i: usize| (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32;
                self.set_word(*to, from_fn(|i| one(i).to_bits()), threads);
            }
            Op::Function { what, to, a } => {
                let a = self.word(*a);
                let of = |f: fn(f32) -> f32| from_fn(|i| f(f32::from_bits(a[i])).to_bits());
                let value = match what {
                    Function::Neg => of(|x| -x),
                    Function::Abs => of(f32::abs),
                    Function::Exp2 => of(f32::exp2),
                    Function::ReciprocalRoot => of(|x| 1.0 / x.sqrt()),
                };
                self.set_word(*to, value, threads);
            }
            Op::CompareFloats { how, to, a, b } => {
                let (a, b) = (self.word(*a), self.word(*b));
                let float = |i: usize| (f32::from_bits(a[i]), f32::from_bits(b[i]));
                let value = flags(|i| compare(*how, float(i)));
                self.set_flag(*to, value, threads);
            }
            Op::CompareWords { how, to, a, b } => {
                let (a, b) = (self.word(*a), self.word(*b));
                let value = flags(|i| compare(*how, (a[i] as i32, b[i] as i32)));
                self.set_flag(*to, value, threads);
            }
            Op::Select {
                size,
                to,
                a,
                b,
                flag,
            } => {
                let chosen = self.flag(*flag);
                self.move_(*size, *to, *a, threads & chosen);
                self.move_(*size, *to, *b, threads & !chosen);
            }
            Op::Convert { what, to, a } => self.convert(*what, *to, *a, threads),
            Op::PackHalves {
                format,
                to,
                high,
                low,
            } => {
                let (high, low) = (self.word(*high), self.word(*low));
                let half = |bits| u32::from(to_half(f32::from_bits(bits), *format));
                let value = from_fn(|i| half(high[i]) << 16 | half(low[i]));
                self.set_word(*to, value, threads);
            }
            Op::Load {
                space,
                size,
                to,
                from,
            } => self.load(*space, *size, to, *from, threads, around)?,
            Op::Store {
                space,
                size,
                to,
                from,
            } => self.store(*space, *size, *to, from, threads, around)?,
            Op::Copy {
                bytes,
                to,
                from,
                filled,
            } => self.copy(*bytes, [*to, *from], *filled, threads, around)?,
            Op::CommitCopies => self.copies.push(std::mem::take(&mut self.begun)),
            Op::WaitCopies(may_stay) => {
                let n = self.copies.len().saturating_sub(*may_stay);
                for SharedBytes { to, bytes, length } in self.copies.drain(..n).flatten() {
                    around.shared[to..to + length].copy_from_slice(&bytes[..length]);
                }
            }
            Op::LoadMatrices {
                transposed,
                to,
                from,
            } => self.load_matrices(*transposed, to, *from, threads, around.shared)?,
            Op::Product { format, d, a, b, c } => {
                together(threads)?;
                let a = left(a.map(|r| self.words[r as usize]), *format);
                let b = right(b.map(|r| self.words[r as usize]), *format);
                let c = c.map(|c| self.word(c));
                let product = multiply(&a, &b);
                for (j, (to, c)) in d.iter().zip(c).enumerate() {
                    let sum = |lane: usize| {
                        let (row, column) = place(lane, j);
                        (f32::from_bits(c[lane]) + product[row][column]).to_bits()
                    };
                    self.words[*to as usize] = from_fn(sum);
                }
            }
            Op::GroupProduct(product) => {
                together(threads)?;
                let issued = self.group_product(product, around.shared)?;
                self.begun_products.push(issued);
            }
            Op::CommitProducts => self.products.push(std::mem::take(&mut self.begun_products)),
            Op::WaitProducts(may_stay) => {
                let n = self.products.len().saturating_sub(*may_stay);
                let due = self.products.drain(..n).flatten();
                due.into_iter()
                    .try_for_each(|product| product.check(around.shared))?;
            }
            Op::Shuffle {
                xor,
                to,
                from,
                lane,
            } => {
                together(threads)?;
                let value = self.word(*from);
                let other = |i: usize| {
                    if *xor {
                        i ^ *lane as usize
                    } else {
                        *lane as usize
                    }
                };
                self.set_word(*to, from_fn(|i| value[other(i)]), threads);
            }
        }
        Ok(())
    }

    fn move_(&mut self, size: Size, to: Register, from: From, threads: u32) {
        match size {
            Size::Flag => self.set_flag(to, self.flag(from), threads),
            Size::Half => self.set_half(to, self.half(from), threads),
            Size::Word => self.set_word(to, self.word(from), threads),
            Size::Long => self.set_long(to, self.long(from), threads),
        }
    }

    fn integer(
        &mut self,
        what: Integer,
        size: Size,
        signed: bool,
        to: Register,
        [a, b]: [From; 2],
        threads: u32,
    ) -> Result<(), String> {
        match size {
            Size::Flag => return Err("no arithmetic of flags is known".into()),
            Size::Half => {
                let (a, b) = (self.half(a), self.half(b));
                let one = |i: usize| match what {
                    Integer::And => Some(a[i] & b[i]),
                    Integer::Or => Some(a[i] | b[i]),
                    Integer::ShiftLeft => Some(a[i].checked_shl(b[i].into()).unwrap_or(0)),
                    _ => None,
                };
                one(0).ok_or("no such arithmetic of 16 bits is known")?;
                self.set_half(to, from_fn(|i| one(i).unwrap_or_default()), threads);
            }
            Size::Word => {
                // A shift by too much gives zeros, or the sign.
                let (a, b) = (self.word(a), self.word(b));
                let divides = what == Integer::Div;
                if divides && (0..LANES).any(|i| threads >> i & 1 == 1 && b[i] == 0) {
                    return Err("division by zero".into());
                }
                let value = from_fn(|i| word(what, signed, a[i], b[i]));
                self.set_word(to, value, threads);
            }
            Size::Long => {
                let shifts = matches!(what, Integer::ShiftLeft | Integer::ShiftRight);
                let by = if shifts {
                    self.word(b).map(u64::from)
                } else {
                    self.long(b)
                };
                let a = self.long(a);
                let one = |i: usize| match what {
                    Integer::Add => Some(a[i].wrapping_add(by[i])),
                    Integer::Sub => Some(a[i].wrapping_sub(by[i])),
                    Integer::Mul => Some(a[i].wrapping_mul(by[i])),
                    Integer::And => Some(a[i] & by[i]),
                    Integer::Or => Some(a[i] | by[i]),
                    Integer::ShiftLeft => Some(a[i].checked_shl(by[i] as u32).unwrap_or(0)),
                    _ => None,
                };
                one(0).ok_or("no such arithmetic of 64 bits is known")?;
                self.set_long(to, from_fn(|i| one(i).unwrap_or_default()), threads);
            }
        }
        Ok(())
    }

    fn convert(&mut self, what: Conversion, to: Register, a: From, threads: u32) {
        match what {
            Conversion::LongFromSigned => {
                let value = self.word(a).map(|x| i64::from(x as i32) as u64);
                self.set_long(to, value, threads);
            }
            Conversion::LongFromUnsigned => {
                let value = self.word(a).map(u64::from);
                self.set_long(to, value, threads);
            }
            Conversion::WordFromHalf => {
                let value = self.half(a).map(u32::from);
                self.set_word(to, value, threads);
            }
            Conversion::FloatFromSigned => {
                let value = self.word(a).map(|x| (x as i32 as f32).to_bits());
                self.set_word(to, value, threads);
            }
            Conversion::FloatFromF16 => {
                let value = products::to_floats(self.half(a), HalfFormat::F16).map(f32::to_bits);
                self.set_word(to, value, threads);
            }
            Conversion::FloatFromBf16 => {
                let value = self.half(a).map(|x| bf16::from_bits(x).to_f32().to_bits());
                self.set_word(to, value, threads);
            }
        }
    }

    fn flag(&self, from: From) -> u32 {
        match from {
            From::Register(r) => self.flags[r as usize],
            From::Number(0) => 0,
            From::Number(_) => ALL,
        }
    }

    fn half(&self, from: From) -> [u16; LANES] {
        match from {
            From::Register(r) => self.halves[r as usize],
            From::Number(n) => [n as u16; LANES],
        }
    }

    fn word(&self, from: From) -> Lanes {
        match from {
            From::Register(r) => self.words[r as usize],
            From::Number(n) => [n as u32; LANES],
        }
    }

    fn long(&self, from: From) -> Longs {
        match from {
            From::Register(r) => self.longs[r as usize],
            From::Number(n) => [n; LANES],
        }
    }

    fn set_flag(&mut self, to: Register, value: u32, threads: u32) {
        let flag = &mut self.flags[to as usize];
        *flag = *flag & !threads | value & threads;
    }

    fn set_half(&mut self, to: Register, value: [u16; LANES], threads: u32) {
        set(&mut self.halves[to as usize], value, threads);
    }

    fn set_word(&mut self, to: Register, value: Lanes, threads: u32) {
        set(&mut self.words[to as usize], value, threads);
    }

    fn set_long(&mut self, to: Register, value: Longs, threads: u32) {
        set(&mut self.longs[to as usize], value, threads);
    }
}

fn set<T: Copy>(to: &mut [T; LANES], value: [T; LANES], threads: u32) {
    if threads == ALL {
        *to = value;
        return;
    }
    for lane in lanes(threads) {
        to[lane] = value[lane];
    }
}

fn lanes(threads: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| threads >> lane & 1 == 1)
}

fn flags(of: impl Fn(usize) -> bool) -> u32 {
    (0..LANES).fold(0, |all, i| all | u32::from(of(i)) << i)
}

fn compare<T: PartialOrd>(how: Comparison, (a, b): (T, T)) -> bool {
    match how {
        Comparison::Less => a < b,
        Comparison::Greater => a > b,
        Comparison::GreaterOrEqual => a >= b,
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b,
    }
}

fn word(what: Integer, signed: bool, a: u32, b: u32) -> u32 {
    let (x, y) = (a as i32, b as i32);
    match what {
        Integer::Add => a.wrapping_add(b),
        Integer::Sub => a.wrapping_sub(b),
        Integer::Mul => a.wrapping_mul(b),
        Integer::Div if signed => x.checked_div(y).unwrap_or(0) as u32,
        Integer::Div => a.checked_div(b).unwrap_or(0),
        Integer::Min if signed => x.min(y) as u32,
        Integer::Min => a.min(b),
        Integer::And => a & b,
        Integer::Or => a | b,
        Integer::Xor => a ^ b,
        Integer::ShiftLeft => a.checked_shl(b).unwrap_or(0),
        Integer::ShiftRight if signed => (x >> b.min(31)) as u32,
        Integer::ShiftRight => a.checked_shr(b).unwrap_or(0),
    }
}

fn together(threads: u32) -> Result<(), String> {
    match threads {
        ALL => Ok(()),
        _ => Err("not all threads of the warp run an instruction that needs all".into()),
    }
}
