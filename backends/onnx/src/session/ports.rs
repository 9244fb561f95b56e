//! The inputs and outputs that a session names.

use embedgate_core::{Head, ModelFolder};
use ort::{
    session::Session,
    value::{Outlet, TensorElementType},
};

use crate::wiring::{Element, Port, Wiring};

/// Describes an input or an output.
pub(super) fn port(outlet: &Outlet) -> Port {
    let element = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Float32) => Element::F32,
        Some(TensorElementType::Float16) => Element::F16,
        Some(TensorElementType::Int64) => Element::I64,
        Some(TensorElementType::Int32) => Element::I32,
        _ => Element::Other,
    };
    let shape = outlet
        .dtype()
        .tensor_shape()
        .map(|shape| shape.to_vec())
        .unwrap_or_default();
    Port {
        name: outlet.name().to_owned(),
        shape,
        element,
    }
}

/// The width that the model states for the tensor of its dense vectors; the folder's where it states none; 0 without such a
/// tensor.
pub(super) fn width(session: &Session, wiring: &Wiring, folder: &ModelFolder) -> usize {
    let Some(dense) = wiring.heads.get(Head::Dense) else {
        return 0;
    };
    let outlet = session
        .outputs()
        .iter()
        .find(|outlet| outlet.name() == dense.name());
    let last = outlet.and_then(|outlet| outlet.dtype().tensor_shape()?.last().copied());
    last.and_then(|width| usize::try_from(width).ok())
        .filter(|width| *width > 0)
        .unwrap_or(folder.encoder.hidden_size)
}
