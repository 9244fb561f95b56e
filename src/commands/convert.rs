//! `embedgate convert`: writes an ONNX model from a model's own weights, and checks it against another backend before it counts.

#[cfg(all(any(feature = "candle", feature = "cpu"), feature = "onnx"))]
mod onnx;

#[cfg(all(any(feature = "candle", feature = "cpu"), feature = "onnx"))]
pub(super) use self::onnx::run;

#[cfg(not(all(any(feature = "candle", feature = "cpu"), feature = "onnx")))]
pub(super) fn run(
    _: Option<&std::path::Path>,
    _: &crate::args::convert::ConvertArgs,
    _: &embedgate_config::Environment,
) -> Result<(), super::Failure> {
    Err(anyhow::anyhow!("convert needs the cargo feature onnx, and candle or cpu").into())
}
