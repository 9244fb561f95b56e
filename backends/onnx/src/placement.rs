//! The operations of a session that run on its device, and those that run on the processor.
//!
//! A provider takes the operations that it has; the processor takes the rest, without a word. That is as it should be for a
//! few integers about masks and shapes. A product there would make the device slower than none.

#![expect(
    unsafe_code,
    reason = "the wrapper of ONNX Runtime does not have these four functions"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, c_char},
    ptr, slice,
};

use ort::{AsPointer, session::Session, sys};

use crate::device::Device;

/// Operations on whole rows of numbers: nearly all of a model's time.
const WORK: [&str; 18] = [
    "Attention",
    "BiasGelu",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "FusedMatMul",
    "Gelu",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "PackedMultiHeadAttention",
    "QAttention",
    "QLinearMatMul",
    "SkipLayerNormalization",
    "Softmax",
];

/// The operations of each provider, by name.
pub(crate) type Placement = BTreeMap<String, Vec<String>>;

/// Fails where a session's work is not on its device.
///
/// # Errors
/// A sentence that names the operations, and what would be right.
pub(crate) fn check(session: &Session, device: Device) -> Result<(), String> {
    if device == Device::Cpu {
        return Ok(());
    }
    let placement =
        of(session).map_err(|e| format!("ONNX Runtime does not say where it runs: {e}"))?;
    let count = |provider: &str| placement.get(provider).map_or(0, Vec::len);
    tracing::debug!(
        "{} operations run on {device}, {} on the processor",
        count(device.provider()),
        count(Device::Cpu.provider())
    );
    judge(&placement, device)
}

fn judge(placement: &Placement, device: Device) -> Result<(), String> {
    let work = |provider: &str| -> BTreeSet<&str> {
        let operations = placement.get(provider).into_iter().flatten();
        let names = operations.map(String::as_str);
        names.filter(|name| WORK.contains(name)).collect()
    };
    let elsewhere = work(Device::Cpu.provider());
    if !elsewhere.is_empty() {
        let names = Vec::from_iter(elsewhere).join(", ");
        return Err(format!(
            "{device} has no {names} for this model, which would run on the processor: write a model for it with \
             `embedgate convert --for gpu`, or set device = \"cpu\""
        ));
    }
    if work(device.provider()).is_empty() {
        return Err(format!("no operation of this model runs on {device}"));
    }
    Ok(())
}

/// Asks the session, which was told to record it.
fn of(session: &Session) -> ort::Result<Placement> {
    let api = ort::api();
    let mut placement = Placement::new();
    // SAFETY: the session lives, and what it lends lives as long as it does.
    let subgraphs = unsafe {
        let (mut start, mut n) = (ptr::null(), 0);
        let status =
            (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut start, &raw mut n);
        ort::Error::result_from_status(status)?;
        list(start, n)
    };
    for &subgraph in subgraphs {
        // SAFETY: it is of the session's list, as the nodes are of its own.
        let (provider, nodes) = unsafe {
            let provider = text(|to| (api.EpAssignedSubgraph_GetEpName)(subgraph, to))?;
            let (mut start, mut n) = (ptr::null(), 0);
            let status = (api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut start, &raw mut n);
            ort::Error::result_from_status(status)?;
            (provider, list(start, n))
        };
        let operations = placement.entry(provider).or_default();
        for &node in nodes {
            // SAFETY: as above.
            operations.push(unsafe { text(|to| (api.EpAssignedNode_GetOperatorType)(node, to))? });
        }
    }
    Ok(placement)
}

/// A list that the library lends.
///
/// # Safety
/// `start` points to `n` values, or `n` is 0.
unsafe fn list<'a, T>(start: *const T, n: usize) -> &'a [T] {
    if n == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(start, n) }
}

/// A text that the library lends.
///
/// # Safety
/// `ask` writes the place of a text that ends in 0, or gives an error.
unsafe fn text(ask: impl FnOnce(*mut *const c_char) -> sys::OrtStatusPtr) -> ort::Result<String> {
    let mut place = ptr::null();
    let status = ask(&raw mut place);
    // SAFETY: the caller's promise.
    unsafe {
        ort::Error::result_from_status(status)?;
        Ok(CStr::from_ptr(place).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(on_device: &[&str], on_processor: &[&str]) -> Placement {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Placement::from([
            (Device::WebGpu.provider().into(), owned(on_device)),
            (Device::Cpu.provider().into(), owned(on_processor)),
        ])
    }

    #[test]
    fn work_on_the_processor_is_named_and_integers_there_are_fine() {
        let judged = |on_device: &[&str], on_processor: &[&str]| {
            judge(&placement(on_device, on_processor), Device::WebGpu)
        };
        assert_eq!(judged(&["MatMul", "Add"], &["CumSum", "Cast"]), Ok(()));
        let error = judged(&["MatMul"], &["Softmax", "Gemm", "Softmax"]).unwrap_err();
        assert!(error.contains("no Gemm, Softmax for this model"), "{error}");
        assert!(error.contains("--for gpu"), "{error}");
        let error = judged(&["Add"], &["Cast"]).unwrap_err();
        assert!(error.contains("no operation"), "{error}");
        assert!(judged(&[], &[]).is_err());
    }

    #[test]
    fn the_names_of_work_are_in_order() {
        assert!(WORK.is_sorted());
    }
}
