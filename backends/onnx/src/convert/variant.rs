//! The variants of a model that are written, and their files.

use embedgate_core::Precision;

/// The device that a model is written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The processor: attention chooses between two forms in the graph.
    #[default]
    Cpu,
    /// Any device of ONNX Runtime: attention is of plain operators, and next to nothing has to run on the processor.
    Gpu,
    /// NVIDIA cards alone: padding is removed before the first layer and put back after the last.
    CudaPacked,
}

/// A variant of a model: the device that it is written for, and its precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The device.
    pub target: Target,
    /// The precision of the products of the encoder's layers, and of the token table. In f16, the whole model is f16,
    /// except its outputs.
    pub precision: Precision,
}

impl Variant {
    /// A model for the processor.
    #[must_use]
    pub const fn of_processor(precision: Precision) -> Self {
        Self {
            target: Target::Cpu,
            precision,
        }
    }

    /// True where its numbers are of 16 bits.
    pub(super) fn is_half(self) -> bool {
        self.precision == Precision::F16
    }
}

/// The files of a written model, both in one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// The model: graph and small tensors.
    pub model: &'static str,
    /// Large tensors. The model refers to it by this name.
    pub data: &'static str,
}

impl Files {
    /// The files of a variant; those for the processor as the hubs name them. None for one that is not written.
    #[must_use]
    pub const fn of(variant: Variant) -> Option<Self> {
        let (model, data) = match (variant.target, variant.precision) {
            (Target::Cpu, Precision::F32) => ("model.onnx", "model.onnx_data"),
            (Target::Cpu, Precision::Int8) => ("model_int8.onnx", "model_int8.onnx_data"),
            (Target::Gpu, Precision::F32) => ("model_gpu.onnx", "model_gpu.onnx_data"),
            (Target::Gpu, Precision::F16) => ("model_gpu_f16.onnx", "model_gpu_f16.onnx_data"),
            (Target::CudaPacked, Precision::F32) => {
                ("model_cuda_packed.onnx", "model_cuda_packed.onnx_data")
            }
            (Target::CudaPacked, Precision::F16) => (
                "model_cuda_packed_f16.onnx",
                "model_cuda_packed_f16.onnx_data",
            ),
            _ => return None,
        };
        Some(Self { model, data })
    }
}
