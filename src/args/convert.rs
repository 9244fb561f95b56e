//! The command line of `convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use embedgate_core::Precision;

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The model's folder, with config.json, tokenizer.json and weights.
    #[arg(value_name = "MODEL_DIR")]
    pub folder: PathBuf,
    /// Where to write the model [default: MODEL_DIR/onnx].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Number format of the layers' products: f32 writes model.onnx and model.onnx_data, int8 writes model_int8.onnx and
    /// model_int8.onnx_data. With --for gpu f32 writes model_gpu.onnx, f16 writes model_gpu_f16.onnx.
    #[arg(short, long, value_name = "PRECISION", default_value = "f32")]
    pub precision: OnnxPrecision,
    /// The device that the model is written for.
    #[arg(long = "for", value_name = "DEVICE", default_value = "cpu")]
    pub target: OnnxTarget,
    /// Replace an ONNX model that is there already.
    #[arg(short, long)]
    pub force: bool,
}

/// Number formats that ONNX models are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnnxPrecision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, for cards: half of the size.
    F16,
    /// Bytes, for the processor: a quarter of the size.
    Int8,
}

/// Devices that ONNX models are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnnxTarget {
    /// The processor.
    Cpu,
    /// Graphics cards, with ONNX Runtime's WebGPU plugin or its CUDA provider.
    Gpu,
    /// NVIDIA cards alone, without padding. It has never run on a card, and runs only where backend.file names it.
    CudaPacked,
}

impl From<OnnxPrecision> for Precision {
    fn from(precision: OnnxPrecision) -> Self {
        match precision {
            OnnxPrecision::F32 => Self::F32,
            OnnxPrecision::F16 => Self::F16,
            OnnxPrecision::Int8 => Self::Int8,
        }
    }
}
