//! Products with a weight, in f32 or of bytes.

use embedgate_core::{
    Precision,
    encoder::{Linear, LinearValues},
};

use super::{
    ConvertError,
    attributes::{int, ints},
    graph::Builder,
    quantize::{Bytes, STEPS, hadamard, rotate, rotation, round_rows},
    tensors::Store,
    transposed::transposed,
};
use crate::proto::element;

type Result<T> = std::result::Result<T, ConvertError>;

/// The byte that stands for zero in an activation: bytes are unsigned, as the processors' instructions have them.
const ZERO: u8 = 128;

/// A linear layer in f32, under the names of its tensors.
pub(super) fn linear(
    b: &mut Builder<'_, '_>,
    name: &str,
    x: &str,
    [inputs, outputs]: [usize; 2],
) -> Result<String> {
    let shape = [outputs, inputs];
    let weight = b
        .tensors
        .weight(&format!("{name}.weight"), &shape, Store::Transposed)?;
    let bias = b
        .tensors
        .weight(&format!("{name}.bias"), &[outputs], Store::AsIs)?;
    let product = b.node("MatMul", &[x, &weight], vec![]);
    Ok(b.node("Add", &[&product, &bias], vec![]))
}

/// A linear layer in the graph's precision.
pub(super) fn linear_in(b: &mut Builder<'_, '_>, layer: &Linear, x: &str) -> Result<String> {
    let name = layer.name();
    if b.variant.precision != Precision::Int8 {
        return linear(b, name, x, [layer.inner, layer.outer()]);
    }
    let values = layer.read(|name, shape| b.tensors.read(name, shape))?;
    computed(b, x, Computed { name, values })
}

/// The numbers of a linear layer that were computed from the model's.
pub(super) struct Computed<'a> {
    /// The layer's name.
    pub(super) name: &'a str,
    pub(super) values: LinearValues,
}

/// A linear layer of numbers that were computed.
pub(super) fn computed(b: &mut Builder<'_, '_>, x: &str, layer: Computed<'_>) -> Result<String> {
    let Computed {
        name,
        values: LinearValues { mut weight, bias },
    } = layer;
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let weight_name = format!("{name}.weight");
    let product = if b.variant.precision != Precision::Int8 {
        let turned = transposed(&weight, outputs, inputs);
        let weight = b
            .tensors
            .floats(&weight_name, &[inputs, outputs], &turned)?;
        b.node("MatMul", &[x, &weight], vec![])
    } else {
        rotate(&mut weight, rotation(inputs));
        let bytes = round_rows(&weight, inputs).ok_or_else(|| not_finite(&weight_name))?;
        of_bytes(b, &weight_name, x, &bytes)?
    };
    let bias = b
        .tensors
        .floats(&format!("{name}.bias"), &[outputs], &bias)?;
    Ok(b.node("Add", &[&product, &bias], vec![]))
}

/// The product with a weight in bytes. Activations are rotated as the weight was, and rounded with a scale of each token,
/// so that no token's accuracy depends on the others of its batch.
fn of_bytes(b: &mut Builder<'_, '_>, name: &str, x: &str, weight: &Bytes) -> Result<String> {
    let outputs = weight.scales.len();
    let inputs = weight.values.len() / outputs;
    let turned = transposed(&weight.values, outputs, inputs);
    let bytes = b.tensors.bytes(name, &[inputs, outputs], &turned)?;
    let scales = b
        .tensors
        .floats(&format!("{name}_scale"), &[outputs], &weight.scales)?;
    let x = rotated(b, x, inputs);
    let largest = largest(b, &x);
    // One of each product, and in the file: ONNX Runtime makes unsigned ones of them where bytes would overflow, by name.
    let symmetric = b.tensors.signed_byte(&format!("{name}_zero_point"), 0);
    let (one, step) = (
        b.tensors.float("one_number", 1.0),
        b.tensors.float("step", 1.0 / STEPS),
    );
    let (steps, zero) = (
        b.tensors.float("steps", STEPS),
        b.tensors.byte("zero_point", ZERO),
    );
    let factor = b.node("Div", &[&steps, &largest], vec![]);
    let x = b.node("Mul", &[&x, &factor], vec![]);
    let x = b.node("QuantizeLinear", &[&x, &one, &zero], vec![]);
    let operands = [&x, &bytes, &step, &scales, &zero, &symmetric].map(String::as_str);
    let product = b.contributed("MatMulIntegerToFloat", &operands, vec![]);
    Ok(b.node("Mul", &[&product, &largest], vec![]))
}

/// The largest amount of each token's numbers, `(batch, length, 1)`. Not zero: it is divided by.
fn largest(b: &mut Builder<'_, '_>, x: &str) -> String {
    let reduced = |b: &mut Builder<'_, '_>, op| {
        let attributes = vec![ints("axes", &[-1]), int("keepdims", 1)];
        b.node(op, &[x], attributes)
    };
    let (high, low) = (reduced(b, "ReduceMax"), reduced(b, "ReduceMin"));
    let low = b.node("Neg", &[&low], vec![]);
    let least = b.tensors.float("least", 1e-30);
    b.node("Max", &[&high, &low, &least], vec![])
}

/// Activations of shape `(batch, length, width)`, rotated in blocks.
fn rotated(b: &mut Builder<'_, '_>, x: &str, width: usize) -> String {
    let size = rotation(width);
    if size == 1 {
        return x.into();
    }
    let blocks = [0, 0, (width / size) as i64, size as i64];
    let blocks = b.tensors.ints(&format!("blocks_{width}"), &blocks, &[4]);
    let joined = b
        .tensors
        .ints(&format!("joined_{width}"), &[0, 0, width as i64], &[3]);
    let matrix = b
        .tensors
        .constants(&format!("hadamard_{size}"), &hadamard(size), &[size, size]);
    let x = b.node("Reshape", &[x, &blocks], vec![]);
    let x = b.node("MatMul", &[&x, &matrix], vec![]);
    b.node("Reshape", &[&x, &joined], vec![])
}

/// Rows of a table by their numbers; in bytes, each row with a scale, or as they are.
pub(super) fn gathered(
    b: &mut Builder<'_, '_>,
    name: &str,
    [rows, width]: [usize; 2],
    numbers: &str,
) -> Result<String> {
    if b.variant.precision != Precision::Int8 {
        let table = b.tensors.weight(name, &[rows, width], Store::AsIs)?;
        return Ok(b.node("Gather", &[&table, numbers], vec![]));
    }
    let bytes = b
        .tensors
        .lend(name, &[rows, width], |values| round_rows(values, width))?;
    let bytes = bytes.ok_or_else(|| not_finite(name))?;
    let table = b.tensors.bytes(name, &[rows, width], &bytes.values)?;
    let scales = b
        .tensors
        .floats(&format!("{name}_scale"), &[rows, 1], &bytes.scales)?;
    let row = b.node("Gather", &[&table, numbers], vec![]);
    let row = b.node("Cast", &[&row], vec![int("to", element::FLOAT.into())]);
    let scale = b.node("Gather", &[&scales, numbers], vec![]);
    Ok(b.node("Mul", &[&row, &scale], vec![]))
}

fn not_finite(name: &str) -> ConvertError {
    let problem = format!(
        "{name} holds NaN or infinity, and int8 needs finite numbers: mend the weights, or convert to f32"
    );
    ConvertError::Weights(problem.into())
}
