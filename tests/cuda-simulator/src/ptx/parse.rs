//! Reads the text of a kernel in PTX into instructions. One that is not known is an error.

use std::collections::HashMap;

use super::{
    Address, Comparison, Conversion, Float, From, Function, GroupProduct, HalfFormat, Instruction,
    Integer, Kernel, Left, Op, Register, Registers, Size, Space, Special,
};

/// The reason why a text is no kernel that can be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PtxError(String);

impl Kernel {
    /// Reads the first kernel of a text.
    ///
    /// # Errors
    /// [`PtxError`] quotes what is not understood.
    pub fn parse(source: &str) -> Result<Self, PtxError> {
        let error = |what: &str| PtxError(what.to_owned());
        let lines: Vec<&str> = source
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .collect();
        let begin = lines
            .iter()
            .position(|line| line.contains(".entry"))
            .ok_or_else(|| error("there is no .entry"))?;
        let name = lines[begin].split_whitespace().last().unwrap_or_default();
        let mut kernel = Self {
            name: name.trim_end_matches('(').to_owned(),
            threads: 0,
            parameters: Vec::new(),
            code: Vec::new(),
            registers: Registers::default(),
        };
        let (mut labels, mut body) = (HashMap::new(), Vec::new());
        for line in &lines[begin + 1..] {
            if line.starts_with(".param") {
                let bytes = if line.contains("64 ") { 8 } else { 4 };
                kernel.parameters.push(bytes);
            } else if let Some(threads) = line.strip_prefix(".reqntid") {
                let threads = threads.split(',').next().unwrap_or_default().trim();
                kernel.threads = threads.parse().map_err(|_| error(line))?;
            } else if line.starts_with(".reg") {
                kernel.registers.declare(line).ok_or_else(|| error(line))?;
            } else if let Some(label) = line.strip_suffix(':') {
                labels.insert((*label).to_owned(), body.len());
            } else if !matches!(*line, "{" | "}" | ")") && !line.starts_with('.') {
                body.push(line.trim_end_matches(';').trim());
            }
        }
        for text in body {
            let instruction = instruction(text, &labels, kernel.parameters.len());
            let cannot = || PtxError(format!("no such instruction is known: {text}"));
            kernel.code.push(instruction.ok_or_else(cannot)?);
        }
        match kernel.threads {
            0 => Err(error("there is no .reqntid")),
            _ => Ok(kernel),
        }
    }
}

impl Registers {
    fn declare(&mut self, line: &str) -> Option<()> {
        let count = line.split(['<', '>']).nth(1)?.parse().ok()?;
        match line.split_whitespace().nth(1)? {
            ".pred" => self.flags = count,
            ".b16" => self.halves = count,
            ".b32" => self.words = count,
            ".b64" => self.longs = count,
            _ => return None,
        }
        Some(())
    }
}

fn instruction(
    text: &str,
    labels: &HashMap<String, usize>,
    n_parameters: usize,
) -> Option<Instruction> {
    let (guard, rest) = match text.strip_prefix('@') {
        Some(rest) => {
            let (flag, rest) = rest.split_once(char::is_whitespace)?;
            let (flag, wanted) = match flag.strip_prefix('!') {
                Some(flag) => (flag, false),
                None => (flag, true),
            };
            (Some((register(flag)?, wanted)), rest.trim())
        }
        None => (None, text),
    };
    let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let operands = split(operands);
    let op = op(name, &operands, labels, n_parameters)?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Instruction { guard, op, text })
}

/// Operands, which commas separate but within braces and brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut all, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                all.push(text[begin..i].trim());
                begin = i + 1;
            }
            _ => {}
        }
    }
    all.push(text[begin..].trim());
    all.retain(|operand| !operand.is_empty());
    all
}

fn register(text: &str) -> Option<Register> {
    let digits = text
        .strip_prefix('%')?
        .trim_start_matches(|c: char| c.is_ascii_lowercase());
    digits.parse().ok()
}

fn from(text: &str) -> Option<From> {
    if text.starts_with('%') {
        return register(text).map(From::Register);
    }
    number(text).map(From::Number)
}

#[expect(clippy::cast_sign_loss, reason = "bits of a number of either sign")]
fn number(text: &str) -> Option<u64> {
    // Shared memory begins at 0.
    if text == "global_smem" {
        return Some(0);
    }
    if let Some(bits) = text.strip_prefix("0f") {
        return u64::from_str_radix(bits, 16).ok();
    }
    if let Some(bits) = text.strip_prefix("0x") {
        return u64::from_str_radix(bits, 16).ok();
    }
    text.parse::<i64>().ok().map(|n| n as u64)
}

fn address(text: &str) -> Option<Address> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let (base, offset) = match inner.split_once('+') {
        Some((base, offset)) => (base.trim(), offset.trim().parse().ok()?),
        None => (inner.trim(), 0),
    };
    Some(Address {
        base: register(base)?,
        offset,
    })
}

/// Registers within braces, or one.
fn vector(text: &str) -> Option<Vec<Register>> {
    list(text).into_iter().map(register).collect()
}

fn list(text: &str) -> Vec<&str> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    split(inner.unwrap_or(text))
}

fn array<T, const N: usize>(of: Option<Vec<T>>) -> Option<[T; N]> {
    of?.try_into().ok()
}

fn size(kind: &str) -> Option<Size> {
    match kind {
        "pred" => Some(Size::Flag),
        "b16" | "u16" | "s16" => Some(Size::Half),
        "b32" | "u32" | "s32" | "f32" => Some(Size::Word),
        "b64" | "u64" | "s64" => Some(Size::Long),
        _ => None,
    }
}

fn half_format(kind: &str) -> Option<HalfFormat> {
    match kind {
        "f16" => Some(HalfFormat::F16),
        "bf16" => Some(HalfFormat::Bf16),
        _ => None,
    }
}

fn op(
    name: &str,
    operands: &[&str],
    labels: &HashMap<String, usize>,
    n_parameters: usize,
) -> Option<Op> {
    let parts: Vec<&str> = name.split('.').collect();
    let kind = *parts.last()?;
    let signed = kind.starts_with('s');
    let operand = |i: usize| operands.get(i).copied();
    let to = || register(operand(0)?);
    let a = || from(operand(1)?);
    let b = || from(operand(2)?);
    let c = || from(operand(3)?);
    Some(match parts[..] {
        ["ret"] => Op::Return,
        ["bar", "sync"] => Op::Barrier,
        ["bra", ..] => Op::Branch(*labels.get(operand(0)?)?),
        ["fence", ..] | ["wgmma", "fence", ..] => Op::Nothing,
        ["mov", "u32"] if operand(1)?.starts_with("%tid") || operand(1)?.starts_with("%ctaid") => {
            let from = match operand(1)? {
                "%tid.x" => Special::Thread,
                "%ctaid.x" => Special::Block(0),
                "%ctaid.y" => Special::Block(1),
                "%ctaid.z" => Special::Block(2),
                _ => return None,
            };
            Op::Special { to: to()?, from }
        }
        ["mov", "b32"] if operand(0)?.starts_with('{') => {
            let [low, high] = array(vector(operand(0)?))?;
            Op::Split {
                low,
                high,
                from: a()?,
            }
        }
        ["mov", "b32"] if operand(1)?.starts_with('{') => {
            let [low, high] = array(list(operand(1)?).into_iter().map(from).collect())?;
            Op::Join {
                to: to()?,
                low,
                high,
            }
        }
        ["mov", kind] => Op::Move {
            size: size(kind)?,
            to: to()?,
            from: a()?,
        },
        ["ld", "param", kind] => {
            let name = operand(1)?.strip_prefix('[')?.strip_suffix(']')?;
            let index: usize = name.rsplit('_').next()?.parse().ok()?;
            let to_size = match operand(0)?.starts_with("%rd") {
                true => Size::Long,
                false => size(kind)?,
            };
            (index < n_parameters).then_some(Op::Parameter {
                index,
                to: to()?,
                to_size,
                signed,
            })?
        }
        ["ld", space, .., kind] => Op::Load {
            space: space_of(space)?,
            size: size(kind)?,
            to: vector(operand(0)?)?,
            from: address(operand(1)?)?,
        },
        ["st", space, .., kind] => Op::Store {
            space: space_of(space)?,
            size: size(kind)?,
            to: address(operand(0)?)?,
            from: list(operand(1)?)
                .into_iter()
                .map(from)
                .collect::<Option<_>>()?,
        },
        ["cp", "async", "commit_group"] => Op::CommitCopies,
        ["cp", "async", "wait_group"] => Op::WaitCopies(operand(0)?.parse().ok()?),
        ["cp", "async", _, "shared", "global"] => Op::Copy {
            bytes: usize::try_from(number(operand(2)?)?).ok()?,
            to: address(operand(0)?)?,
            from: address(operand(1)?)?,
            filled: operand(3).map(from).map_or(Some(None), |f| f.map(Some))?,
        },
        ["ldmatrix", .., "b16"] => Op::LoadMatrices {
            transposed: parts.contains(&"trans"),
            to: vector(operand(0)?)?,
            from: address(operand(1)?)?,
        },
        [
            "mma",
            "sync",
            "aligned",
            "m16n8k16",
            "row",
            "col",
            "f32",
            x,
            y,
            "f32",
        ] if x == y => Op::Product {
            format: half_format(x)?,
            d: array(vector(operand(0)?))?,
            a: array(vector(operand(1)?))?,
            b: array(vector(operand(2)?))?,
            c: array(list(operand(3)?).into_iter().map(from).collect())?,
        },
        ["wgmma", "commit_group", ..] => Op::CommitProducts,
        ["wgmma", "wait_group", ..] => Op::WaitProducts(operand(0)?.parse().ok()?),
        ["wgmma", "mma_async", "sync", "aligned", shape, "f32", x, y] if x == y => {
            let n = shape.strip_prefix("m64n")?.strip_suffix("k16")?;
            // d, a, b, whether to add, the signs of a and b, and which of them lie transposed in shared memory.
            let (a, b_transposed) = if operand(1)?.starts_with('{') {
                (Left::Registers(array(vector(operand(1)?))?), operand(6)?)
            } else {
                let a = Left::Shared {
                    descriptor: register(operand(1)?)?,
                    transposed: operand(6)? != "0",
                };
                (a, operand(7)?)
            };
            let signs = [operand(4)?, operand(5)?];
            (signs == ["1", "1"]).then_some(())?;
            Op::GroupProduct(Box::new(GroupProduct {
                n: n.parse().ok()?,
                format: half_format(x)?,
                d: vector(operand(0)?)?,
                a,
                b: register(operand(2)?)?,
                b_transposed: b_transposed != "0",
                adds: from(operand(3)?)?,
            }))
        }
        ["shfl", "sync", how, "b32"] => Op::Shuffle {
            xor: match how {
                "bfly" => true,
                "idx" => false,
                _ => return None,
            },
            to: to()?,
            from: a()?,
            lane: u32::try_from(number(operand(2)?)?).ok()?,
        },
        ["setp", how, kind] => {
            let how = match how {
                "lt" => Comparison::Less,
                "gt" => Comparison::Greater,
                "ge" => Comparison::GreaterOrEqual,
                "eq" => Comparison::Equal,
                "ne" => Comparison::NotEqual,
                _ => return None,
            };
            let (to, a, b) = (to()?, a()?, b()?);
            match kind {
                // Of floats, what is not equal is false where one is no number.
                "f32" if how != Comparison::NotEqual => Op::CompareFloats { how, to, a, b },
                "s32" => Op::CompareWords { how, to, a, b },
                "b32" if matches!(how, Comparison::Equal | Comparison::NotEqual) => {
                    Op::CompareWords { how, to, a, b }
                }
                _ => return None,
            }
        }
        ["selp", kind] => Op::Select {
            size: size(kind)?,
            to: to()?,
            a: a()?,
            b: b()?,
            flag: c()?,
        },
        ["cvt", "rn", "f16x2", "f32"] | ["cvt", "rn", "bf16x2", "f32"] => Op::PackHalves {
            format: half_format(parts[2].strip_suffix("x2")?)?,
            to: to()?,
            high: a()?,
            low: b()?,
        },
        ["cvt", ..] => {
            let what = match parts[1..] {
                ["s64", "s32"] => Conversion::LongFromSigned,
                ["u64", "u32"] => Conversion::LongFromUnsigned,
                ["u32", "u16"] => Conversion::WordFromHalf,
                ["rn", "f32", "s32"] => Conversion::FloatFromSigned,
                ["f32", "f16"] => Conversion::FloatFromF16,
                ["f32", "bf16"] => Conversion::FloatFromBf16,
                _ => return None,
            };
            Op::Convert {
                what,
                to: to()?,
                a: a()?,
            }
        }
        ["and", "pred"] => Op::AndFlags {
            to: to()?,
            a: a()?,
            b: b()?,
        },
        ["mad", "lo", "s32"] => Op::MultiplyAdd {
            to: to()?,
            a: a()?,
            b: b()?,
            c: c()?,
        },
        [what @ ("mul" | "mad"), "wide", "s32" | "u32"] => Op::Wide {
            signed,
            to: to()?,
            a: a()?,
            b: b()?,
            c: if what == "mad" { c()? } else { From::Number(0) },
        },
        ["bfe", "s32" | "u32"] => Op::Bits {
            signed,
            to: to()?,
            a: a()?,
            position: u32::try_from(number(operand(2)?)?).ok()?,
            length: u32::try_from(number(operand(3)?)?).ok()?,
        },
        ["fma", "rn", "f32"] => Op::Fma {
            to: to()?,
            a: a()?,
            b: b()?,
            c: c()?,
        },
        ["neg", "s32"] => Op::Integer {
            what: Integer::Sub,
            size: Size::Word,
            signed: true,
            to: to()?,
            a: From::Number(0),
            b: a()?,
        },
        [.., "f32"] => {
            let binary = match parts[..] {
                ["add", _] => Some(Float::Add),
                ["sub", _] => Some(Float::Sub),
                ["mul", _] => Some(Float::Mul),
                ["div", "full", _] => Some(Float::Div),
                ["max", _] => Some(Float::Max),
                ["max", "NaN", _] => Some(Float::MaxOrNan),
                _ => None,
            };
            let unary = match parts[..] {
                ["neg", _] => Some(Function::Neg),
                ["abs", _] => Some(Function::Abs),
                ["ex2", "approx", "ftz", _] => Some(Function::Exp2),
                ["rsqrt", "approx", "ftz", _] => Some(Function::ReciprocalRoot),
                _ => None,
            };
            match (binary, unary) {
                (Some(what), _) => Op::Float {
                    what,
                    to: to()?,
                    a: a()?,
                    b: b()?,
                },
                (None, Some(what)) => Op::Function {
                    what,
                    to: to()?,
                    a: a()?,
                },
                (None, None) => return None,
            }
        }
        [what, .., kind] => Op::Integer {
            what: match what {
                "add" => Integer::Add,
                "sub" => Integer::Sub,
                "mul" if parts[1] == "lo" => Integer::Mul,
                "div" => Integer::Div,
                "min" => Integer::Min,
                "and" => Integer::And,
                "or" => Integer::Or,
                "xor" => Integer::Xor,
                "shl" => Integer::ShiftLeft,
                "shr" => Integer::ShiftRight,
                _ => return None,
            },
            size: size(kind)?,
            signed,
            to: to()?,
            a: a()?,
            b: b()?,
        },
        _ => return None,
    })
}

fn space_of(name: &str) -> Option<Space> {
    match name {
        "global" => Some(Space::Global),
        "shared" => Some(Space::Shared),
        _ => None,
    }
}
