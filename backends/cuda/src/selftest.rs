//! Runs a kernel on numbers that are always the same, and compares what it gives with arithmetic in f64: a kernel that gives something
//! else on this card, with this driver, is never used.

use std::sync::Arc;

use embedgate_core::math;

use crate::{
    calls::{Attention, Call, Norm, RowShape, Sequences, Tables, Tokens},
    device::{Buffer, Device, Kernel, Stream},
    error::DriverError,
    format::Format,
    library::Shipped,
};

/// The reason why a kernel is not used.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Its results are wrong, as this says.
    Wrong(String),
    /// The driver failed.
    Driver(DriverError),
}

impl From<DriverError> for Rejection {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

/// Runs a kernel on fixed numbers.
///
/// # Errors
/// [`Rejection`] names the first wrong result, or the driver's error.
pub(crate) fn run(
    stream: &Stream,
    kernel: &Kernel,
    shipped: &Shipped,
    extent: Extent,
) -> Result<(), Rejection> {
    let test = Test {
        stream,
        kernel,
        format: shipped.format,
        extent,
    };
    let constant = |name| shipped.constant(name);
    match &*shipped.kind {
        "attention" => test.attention(constant("D"), constant("BM")),
        "linear" => test.linear(
            [constant("BM"), constant("BN"), constant("BK")],
            constant("ACT"),
        ),
        "add_norm" => test.add_norm(constant("BC")),
        "embed_norm" => test.embed_norm(constant("BC")),
        "first_rows" => test.first_rows(),
        "pool" => test.pool(constant("KIND")),
        "row_dot" => test.row_dot(),
        other => Err(Rejection::Wrong(format!("there is no test of {other}"))),
    }
}

/// The extent of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// As much as takes a device a millisecond.
    Quick,
    /// More tiles than go in one group, too.
    Whole,
}

/// The results of a linear layer's kernel on fixed numbers, bit for bit.
pub(crate) fn bits(
    stream: &Stream,
    kernel: &Kernel,
    tile: [usize; 3],
    format: Format,
) -> Result<Vec<u16>, DriverError> {
    let test = Test {
        stream,
        kernel,
        format,
        extent: Extent::Quick,
    };
    // Columns are whole tiles of every kernel; terms are more than one step of any.
    let (m, n, k) = (70, 256, 256);
    let (x, _) = test.put_halves(&numbers(1, m * k))?;
    let (w, _) = test.put_halves(&numbers(2, n * k))?;
    let bias = test.put(&numbers(3, n))?;
    let out = test.room(m * n * 2)?;
    test.call().linear([&x, &w, &bias, &out], [m, n, k], tile)?;
    let mut bits = vec![0; m * n];
    stream.download(&out, &mut bits)?;
    Ok(bits)
}

struct Test<'a> {
    stream: &'a Stream,
    kernel: &'a Kernel,
    format: Format,
    extent: Extent,
}

/// Added to the variance by normalizations.
const EPS: f32 = 1e-5;
/// Lengths of texts: less than a tile, a tile, more, several.
const LENGTHS: [usize; 6] = [1, 3, 64, 65, 17, 150];

/// Returns `n` numbers within -1 and 1, the same each time, by Marsaglia's xorshift.
fn numbers(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// The first rows of texts of [`LENGTHS`], and the end of the last.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "some hundred rows"
)]
fn offsets() -> Vec<i32> {
    let mut sum = 0;
    let ends = LENGTHS.iter().map(|n| {
        sum += *n as i32;
        sum
    });
    std::iter::once(0).chain(ends).collect()
}

impl Test<'_> {
    fn device(&self) -> &Arc<Device> {
        self.stream.device()
    }

    fn put<T: Copy>(&self, numbers: &[T]) -> Result<Buffer, DriverError> {
        let buffer = Buffer::new(self.device(), size_of_val(numbers))?;
        self.stream.upload(numbers, &buffer, 0)?;
        Ok(buffer)
    }

    /// Puts numbers on the device in 16 bits; returns them as they are there, too.
    fn put_halves(&self, numbers: &[f32]) -> Result<(Buffer, Vec<f32>), DriverError> {
        let bits: Vec<u16> = numbers.iter().map(|x| self.format.round(*x)).collect();
        let buffer = self.put(&bits)?;
        Ok((
            buffer,
            bits.into_iter().map(|x| self.format.number(x)).collect(),
        ))
    }

    /// Room for results, which is no numbers at first.
    fn room(&self, bytes: usize) -> Result<Buffer, DriverError> {
        let buffer = Buffer::new(self.device(), bytes)?;
        self.stream.fill(&buffer, 0xff)?;
        Ok(buffer)
    }

    fn put_norm(&self, [weight, bias]: [&[f32]; 2]) -> Result<Norm, DriverError> {
        Ok(Norm {
            weight: self.put(weight)?,
            bias: self.put(bias)?,
            eps: EPS,
        })
    }

    fn call(&self) -> Call<'_> {
        Call {
            stream: self.stream,
            kernel: self.kernel,
        }
    }

    /// Returns sequences of the lengths in [`LENGTHS`].
    fn sequences<'a>(&self, offsets: &'a Buffer) -> Sequences<'a> {
        Sequences {
            offsets: offsets.into(),
            n: LENGTHS.len(),
            n_tokens: LENGTHS.iter().sum(),
        }
    }

    fn halves(&self, from: &Buffer, n: usize) -> Result<Vec<f32>, DriverError> {
        let mut bits = vec![0_u16; n];
        self.stream.download(from, &mut bits)?;
        Ok(bits.into_iter().map(|x| self.format.number(x)).collect())
    }

    fn floats(&self, from: &Buffer, n: usize) -> Result<Vec<f32>, DriverError> {
        let mut numbers = vec![0_f32; n];
        self.stream.download(from, &mut numbers)?;
        Ok(numbers)
    }

    /// Compares results, which may differ by so many roundings of the largest.
    fn compare(&self, got: &[f32], expected: &[f64], roundings: f32) -> Result<(), Rejection> {
        let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let most = f64::from(roundings * self.format.rounding()) * largest;
        let differs = |(_, (a, b)): &(usize, (&f32, &f64))| {
            let difference = (f64::from(**a) - **b).abs();
            // A NaN is as wrong as can be.
            difference.is_nan() || difference > most
        };
        match got.iter().zip(expected).enumerate().find(differs) {
            None => Ok(()),
            Some((i, (a, b))) => Err(Rejection::Wrong(format!(
                "result {i} is {a}, expected {b} within {most:.1e}"
            ))),
        }
    }

    fn attention(&self, d: usize, tile: usize) -> Result<(), Rejection> {
        let (heads, n_tokens) = (2, LENGTHS.iter().sum::<usize>());
        let (qkv, values) = self.put_halves(&numbers(1, n_tokens * 3 * heads * d))?;
        let out = self.room(n_tokens * heads * d * 2)?;
        let offsets = offsets();
        let blocks: Vec<i32> = (0..LENGTHS.len())
            .flat_map(|text| (0..LENGTHS[text].div_ceil(tile)).map(move |block| [text, block]))
            .flat_map(|pair| pair.map(|n| i32::try_from(n).unwrap_or(i32::MAX)))
            .collect();
        let (cu, places) = (self.put(&offsets)?, self.put(&blocks)?);
        // As large as scores are in a model, so that the softmax is not flat.
        let scale = 1.5;
        let attention = Attention {
            heads,
            head_size: d,
            n_blocks: blocks.len() / 2,
            scale,
        };
        let sequences = self.sequences(&cu);
        self.call()
            .attention([&qkv, &out], sequences, (&places).into(), attention)?;
        let got = self.halves(&out, n_tokens * heads * d)?;
        let at = |row: usize, part: usize, head: usize| {
            let begin = ((row * 3 + part) * heads + head) * d;
            &values[begin..begin + d]
        };
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let mut expected = vec![0.0; got.len()];
        for (text, n) in LENGTHS.iter().enumerate() {
            let first = usize::try_from(offsets[text]).unwrap_or(0);
            for (row, head) in (first..first + n).flat_map(|r| (0..heads).map(move |h| (r, h))) {
                let scores = (first..first + n)
                    .map(|key| dot(at(row, 0, head), at(key, 1, head)) * f64::from(scale));
                let scores: Vec<f64> = scores.collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let out = &mut expected[(row * heads + head) * d..][..d];
                for (key, weight) in (first..first + n).zip(weights) {
                    for (sum, v) in out.iter_mut().zip(at(key, 2, head)) {
                        *sum += weight / total * f64::from(*v);
                    }
                }
            }
        }
        // Weights are rounded before they are multiplied.
        self.compare(&got, &expected, 4.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "functions are of f32, as on the device"
    )]
    fn linear(&self, [bm, bn, bk]: [usize; 3], activation: usize) -> Result<(), Rejection> {
        // Some tiles of rows, or more than go in a group, the last of them cut; several tiles of columns and of terms.
        let tiles = if self.extent == Extent::Whole { 9 } else { 1 };
        let (m, n, k) = (bm * tiles + 5, bn * 2, bk * 4);
        let (x, xs) = self.put_halves(&numbers(1, m * k))?;
        let (w, ws) = self.put_halves(&numbers(2, n * k))?;
        let biases = numbers(3, n);
        let bias = self.put(&biases)?;
        let out = self.room(m * n * 2)?;
        self.call()
            .linear([&x, &w, &bias, &out], [m, n, k], [bm, bn, bk])?;
        let got = self.halves(&out, m * n)?;
        let activate: fn(f32) -> f32 = match activation {
            1 => |x| math::gelu(x, false),
            2 => |x| math::gelu_tanh(x, false),
            3 => |x| x.max(0.0),
            4 => f32::tanh,
            _ => |x| x,
        };
        let expected = (0..m * n).map(|i| {
            let (row, column) = (&xs[i / n * k..][..k], &ws[i % n * k..][..k]);
            let products = row.iter().zip(column);
            let sum: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            f64::from(activate((sum + f64::from(biases[i % n])) as f32))
        });
        self.compare(&got, &expected.collect::<Vec<f64>>(), 1.1)
    }

    fn add_norm(&self, widest: usize) -> Result<(), Rejection> {
        let (n, width) = (5, widest - 70);
        let stride = widest - 64;
        let (x, xs) = self.put_halves(&numbers(1, n * stride))?;
        let (r, rs) = self.put_halves(&numbers(2, n * stride))?;
        let (gs, bs) = (numbers(3, width), numbers(4, width));
        let norm = self.put_norm([&gs, &bs])?;
        let out = self.room(n * stride * 2)?;
        let row = RowShape { width, stride };
        self.call().add_norm([&x, &r, &out], &norm, n, row)?;
        let rows = xs.chunks_exact(stride).zip(rs.chunks_exact(stride));
        let expected = rows.flat_map(|(x, r)| {
            let sums = x.iter().zip(r).take(width);
            let sums: Vec<f64> = sums.map(|(x, r)| f64::from(*x) + f64::from(*r)).collect();
            normalized(&sums, [&gs, &bs], stride)
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.halves(&out, n * stride)?, &expected, 1.1)
    }

    fn embed_norm(&self, widest: usize) -> Result<(), Rejection> {
        let (width, stride) = (widest - 70, widest - 64);
        let places: [[i32; 3]; 4] = [[0, 1, 0], [6, 0, 1], [3, 4, 0], [6, 2, 1]];
        let column = |i: usize| places.map(|place| place[i]);
        let (ids, pos, seg) = (
            self.put(&column(0))?,
            self.put(&column(1))?,
            self.put(&column(2))?,
        );
        let tokens = Tokens {
            ids: (&ids).into(),
            positions: (&pos).into(),
            segments: (&seg).into(),
            n: places.len(),
        };
        let (word, ws) = self.put_halves(&numbers(1, 7 * width))?;
        let (position, ps) = self.put_halves(&numbers(2, 5 * width))?;
        let (segment, ts) = self.put_halves(&numbers(3, 2 * width))?;
        let tables = Tables {
            word,
            position,
            segment,
        };
        let (gs, bs) = (numbers(4, width), numbers(5, width));
        let norm = self.put_norm([&gs, &bs])?;
        let out = self.room(places.len() * stride * 2)?;
        let row = RowShape { width, stride };
        self.call().embed_norm(tokens, &tables, &norm, &out, row)?;
        let expected = places.iter().flat_map(|place| {
            let row = |values: &[f32], i: i32| {
                let begin = usize::try_from(i).unwrap_or(0) * width;
                values[begin..begin + width].to_vec()
            };
            let (w, p, t) = (row(&ws, place[0]), row(&ps, place[1]), row(&ts, place[2]));
            let sum = |i: usize| f64::from(w[i]) + f64::from(p[i]) + f64::from(t[i]);
            normalized(
                &(0..width).map(sum).collect::<Vec<f64>>(),
                [&gs, &bs],
                stride,
            )
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.halves(&out, places.len() * stride)?, &expected, 1.1)
    }

    fn first_rows(&self) -> Result<(), Rejection> {
        let (stride, n_tokens) = (320, LENGTHS.iter().sum::<usize>());
        let (x, xs) = self.put_halves(&numbers(1, n_tokens * stride))?;
        let offsets = offsets();
        let cu = self.put(&offsets)?;
        let out = self.room(LENGTHS.len() * stride * 2)?;
        self.call()
            .first_rows([&x, &out], self.sequences(&cu), stride)?;
        let first = offsets[..LENGTHS.len()].iter().flat_map(|row| {
            let begin = usize::try_from(*row).unwrap_or(0) * stride;
            xs[begin..begin + stride].iter().map(|x| f64::from(*x))
        });
        let expected: Vec<f64> = first.collect();
        self.compare(&self.halves(&out, expected.len())?, &expected, 0.0)
    }

    fn pool(&self, kind: usize) -> Result<(), Rejection> {
        let (width, stride, n_tokens) = (100, 128, LENGTHS.iter().sum::<usize>());
        let (x, xs) = self.put_halves(&numbers(1, n_tokens * stride))?;
        let offsets = offsets();
        let cu = self.put(&offsets)?;
        let out = self.room(LENGTHS.len() * width * 4)?;
        let row = RowShape { width, stride };
        self.call().pool([&x, &out], self.sequences(&cu), row)?;
        let expected = offsets.windows(2).flat_map(|ends| {
            let rows = ends[0]..ends[1];
            let at = |row: i32, column: usize| {
                f64::from(xs[usize::try_from(row).unwrap_or(0) * stride + column])
            };
            (0..width).map(move |c| {
                let column = rows.clone().map(|row| at(row, c));
                match kind {
                    0 => at(rows.start, c),
                    1 => at(rows.end - 1, c),
                    2 => column.sum::<f64>() / f64::from(rows.end - rows.start),
                    _ => column.fold(f64::NEG_INFINITY, f64::max),
                }
            })
        });
        let expected: Vec<f64> = expected.collect();
        self.compare(&self.floats(&out, expected.len())?, &expected, 1e-3)
    }

    fn row_dot(&self) -> Result<(), Rejection> {
        let (n, width, stride) = (9, 500, 512);
        let (x, xs) = self.put_halves(&numbers(1, n * stride))?;
        let ws = numbers(2, width);
        let w = self.put(&ws)?;
        let out = self.room(n * 4)?;
        self.call()
            .row_dot([&x, &w, &out], 0.25, n, RowShape { width, stride })?;
        let dot = |row: &[f32]| {
            let products = row.iter().zip(&ws);
            products
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>()
                + 0.25
        };
        let expected: Vec<f64> = xs.chunks_exact(stride).map(dot).collect();
        self.compare(&self.floats(&out, n)?, &expected, 1e-3)
    }
}

/// `LayerNorm` of a row, with zeros up to `stride`.
fn normalized(row: &[f64], [gains, biases]: [&[f32]; 2], stride: usize) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
    let of = |i: usize| match row.get(i) {
        Some(x) => (x - mean) * scale * f64::from(gains[i]) + f64::from(biases[i]),
        None => 0.0,
    };
    (0..stride).map(of).collect()
}
