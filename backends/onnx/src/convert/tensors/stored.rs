//! Tensors as they are stored: small ones in the model file, large ones in the data file.

use std::io;

use half::f16;

use crate::{
    convert::data::DataFile,
    proto::{EXTERNAL, Entry, Tensor, element},
};

/// Tensors up to this many numbers stay in the model file, where ONNX Runtime's fusions can read them; the rest lie in
/// the data file, where they can be mapped.
const INLINE: usize = 4096;
/// The name of a tensor and its shape.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) name: &'a str,
    pub(super) dims: &'a [usize],
}

impl Header<'_> {
    /// A tensor without its numbers.
    pub(super) fn tensor(self, data_type: i32) -> Tensor {
        Tensor {
            dims: self.dims.iter().map(|dim| *dim as i64).collect(),
            data_type,
            name: self.name.into(),
            ..Tensor::default()
        }
    }
}

/// The element type of numbers.
pub(super) fn element_of(is_half: bool) -> i32 {
    if is_half {
        element::FLOAT16
    } else {
        element::FLOAT
    }
}

/// A tensor of numbers, in f32 or rounded to f16, which has to hold them.
pub(super) fn stored_numbers(
    data: &mut DataFile,
    header: Header<'_>,
    values: &[f32],
    is_half: bool,
) -> io::Result<Tensor> {
    if !is_half {
        return stored(data, header, element::FLOAT, little_endian(values));
    }
    let largest = f16::MAX.to_f32();
    if let Some(large) = values.iter().find(|v| v.abs() > largest || v.is_nan()) {
        let name = header.name;
        let problem = format!("{name} holds {large}, f16 ends at {largest}: convert to f32");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    stored(data, header, element::FLOAT16, halves(values))
}

/// A tensor that holds its numbers, or says where in the data file they lie now.
pub(super) fn stored<const N: usize>(
    data: &mut DataFile,
    header: Header<'_>,
    data_type: i32,
    raw: impl Iterator<Item = [u8; N]>,
) -> io::Result<Tensor> {
    let tensor = header.tensor(data_type);
    if header.dims.iter().product::<usize>() <= INLINE {
        let raw_data = raw.flatten().collect();
        return Ok(Tensor { raw_data, ..tensor });
    }
    let extent = data.append(raw)?;
    let entries = [
        ("location", data.name()),
        ("offset", extent.start.to_string()),
        ("length", (extent.end - extent.start).to_string()),
    ];
    let external_data = entries.map(|(key, value)| Entry {
        key: key.into(),
        value,
    });
    Ok(Tensor {
        external_data: external_data.into(),
        data_location: EXTERNAL,
        ..tensor
    })
}

/// The bytes of numbers in f32.
pub(super) fn little_endian(values: &[f32]) -> impl Iterator<Item = [u8; 4]> {
    values.iter().map(|v| v.to_le_bytes())
}

/// The bytes of numbers, rounded to f16.
pub(super) fn halves(values: &[f32]) -> impl Iterator<Item = [u8; 2]> {
    values.iter().map(|v| f16::from_f32(*v).to_le_bytes())
}
