//! A kernel as instructions. Only those are known that embedgate's kernels have.
//!
//! Source: NVIDIA, Parallel Thread Execution ISA 8.0.

mod parse;

pub use self::parse::PtxError;

/// A kernel that can be run.
#[derive(Debug)]
pub struct Kernel {
    /// Its entry's name.
    pub name: String,
    /// Threads of a block, which launches must have.
    pub threads: u32,
    /// Bytes of each parameter.
    pub parameters: Vec<usize>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) registers: Registers,
}

/// The number of a thread's registers, by size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) flags: usize,
    pub(crate) halves: usize,
    pub(crate) words: usize,
    pub(crate) longs: usize,
}

#[derive(Debug)]
pub(crate) struct Instruction {
    /// Only threads in which this flag is set, or is not set, run it.
    pub(crate) guard: Option<(Register, bool)>,
    pub(crate) op: Op,
    /// As it is written, for messages.
    pub(crate) text: String,
}

pub(crate) type Register = u16;

/// A register of the size that the instruction says, or a number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Register(Register),
    Number(u64),
}

/// A place in memory: a register's value, and so many bytes more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: Register,
    pub(crate) offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Flag,
    Half,
    Word,
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Thread,
    /// Of the block, by axis.
    Block(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Integer {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    MaxOrNan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Neg,
    Abs,
    Exp2,
    ReciprocalRoot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// To 64 bits.
    LongFromSigned,
    LongFromUnsigned,
    WordFromHalf,
    FloatFromSigned,
    FloatFromF16,
    FloatFromBf16,
}

/// Formats of numbers of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HalfFormat {
    F16,
    Bf16,
}

/// The left operand of a product of a group of warps.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    Registers([Register; 4]),
    Shared {
        descriptor: Register,
        transposed: bool,
    },
}

/// A product of a group of four warps: `d = a b (+ d)`, of 64 rows, `n` columns and 16 terms.
#[derive(Clone, Debug)]
pub(crate) struct GroupProduct {
    pub(crate) n: usize,
    pub(crate) format: HalfFormat,
    pub(crate) d: Vec<Register>,
    pub(crate) a: Left,
    pub(crate) b: Register,
    pub(crate) b_transposed: bool,
    pub(crate) adds: From,
}

#[derive(Debug)]
pub(crate) enum Op {
    Nothing,
    Barrier,
    Return,
    Branch(usize),
    Move {
        size: Size,
        to: Register,
        from: From,
    },
    /// The halves of a word.
    Split {
        low: Register,
        high: Register,
        from: From,
    },
    /// A word of two halves.
    Join {
        to: Register,
        low: From,
        high: From,
    },
    Special {
        to: Register,
        from: Special,
    },
    Parameter {
        index: usize,
        to: Register,
        to_size: Size,
        signed: bool,
    },
    Integer {
        what: Integer,
        size: Size,
        signed: bool,
        to: Register,
        a: From,
        b: From,
    },
    AndFlags {
        to: Register,
        a: From,
        b: From,
    },
    MultiplyAdd {
        to: Register,
        a: From,
        b: From,
        c: From,
    },
    Wide {
        signed: bool,
        to: Register,
        a: From,
        b: From,
        c: From,
    },
    Bits {
        signed: bool,
        to: Register,
        a: From,
        position: u32,
        length: u32,
    },
    Float {
        what: Float,
        to: Register,
        a: From,
        b: From,
    },
    Fma {
        to: Register,
        a: From,
        b: From,
        c: From,
    },
    Function {
        what: Function,
        to: Register,
        a: From,
    },
    CompareFloats {
        how: Comparison,
        to: Register,
        a: From,
        b: From,
    },
    CompareWords {
        how: Comparison,
        to: Register,
        a: From,
        b: From,
    },
    Select {
        size: Size,
        to: Register,
        a: From,
        b: From,
        flag: From,
    },
    Convert {
        what: Conversion,
        to: Register,
        a: From,
    },
    PackHalves {
        format: HalfFormat,
        to: Register,
        high: From,
        low: From,
    },
    Load {
        space: Space,
        size: Size,
        to: Vec<Register>,
        from: Address,
    },
    Store {
        space: Space,
        size: Size,
        to: Address,
        from: Vec<From>,
    },
    /// Bytes beyond `filled` become zero.
    Copy {
        bytes: usize,
        to: Address,
        from: Address,
        filled: Option<From>,
    },
    CommitCopies,
    WaitCopies(usize),
    LoadMatrices {
        transposed: bool,
        to: Vec<Register>,
        from: Address,
    },
    Product {
        format: HalfFormat,
        d: [Register; 4],
        a: [Register; 4],
        b: [Register; 2],
        c: [From; 4],
    },
    GroupProduct(Box<GroupProduct>),
    CommitProducts,
    WaitProducts(usize),
    /// From the lane whose number differs in these bits, or from this lane.
    Shuffle {
        xor: bool,
        to: Register,
        from: From,
        lane: u32,
    },
}
