//! The table of the backend types: the facts by which the configuration is read and checked.
//!
//! A new backend is a variant of [`BackendType`], and an entry here in the same place.

use embedgate_core::Precision;

use super::{BackendType, Device, PrecisionChoice};

use PrecisionChoice::{Auto, Bf16, F16, F32, Int8};

/// The facts of a backend type.
pub(super) struct BackendFacts {
    kind: BackendType,
    pub(super) name: &'static str,
    /// The precision that none means.
    pub(super) usual_precision: Precision,
    /// The precisions that it has on a device.
    pub(super) precisions: fn(Device) -> &'static [PrecisionChoice],
    /// Says what a precision must be on a device, of one that it does not have there.
    pub(super) fitting: fn(PrecisionChoice, Device) -> &'static str,
    /// The device that none means.
    pub(super) usual_device: Device,
    /// The devices that `auto` leaves open.
    pub(super) open: Open,
    /// Says what is wrong with a device that it does not run on.
    pub(super) unfit: fn(Device) -> Option<String>,
    /// The reasons why settings are refused; none where they are taken.
    pub(super) refusals: Refusals,
}

/// The devices among which `device = "auto"` chooses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// The processor is all there is.
    Processor,
    /// Cards, but not the processor.
    Cards,
    /// Cards, and the processor after them.
    All,
}

/// The reasons why a type refuses a setting; none where it takes the setting.
#[derive(Clone, Copy)]
pub(super) struct Refusals {
    pub(super) file: Option<&'static str>,
    pub(super) pin_threads: Option<&'static str>,
    pub(super) threads: Option<&'static str>,
    pub(super) max_memory: Option<&'static str>,
}

impl Refusals {
    /// Those of a type that reads the folder's weights and leaves its threads to the system.
    const USUAL: Self = Self {
        file: Some("is for type = \"onnx\"; the others read the weights of the model's folder"),
        pin_threads: Some("is for type = \"cpu\"; the others leave their threads to the system"),
        threads: None,
        max_memory: None,
    };
}

const CPU: BackendFacts = BackendFacts {
    kind: BackendType::Cpu,
    name: "cpu",
    usual_precision: Precision::F32,
    precisions: |_| &[Auto, F32, Bf16, Int8],
    fitting: |_, _| r#""f32", "bf16", "int8" or "auto" with type = "cpu""#,
    usual_device: Device::Cpu,
    // With this type, which is what no type means, the device chooses the type.
    open: Open::Processor,
    unfit: |device| match device {
        Device::Cpu => None,
        Device::Cuda(_) => Some(format!(
            r#"is "{device}", and type = "cpu" runs on the processor alone: leave type out, and the device chooses it"#
        )),
        Device::WebGpu => Some(no_webgpu("cpu")),
    },
    refusals: Refusals {
        pin_threads: None,
        ..Refusals::USUAL
    },
};

const CANDLE: BackendFacts = BackendFacts {
    kind: BackendType::Candle,
    name: "candle",
    usual_precision: Precision::F32,
    precisions: |device| match device {
        Device::Cpu => &[Auto, F32],
        Device::Cuda(_) | Device::WebGpu => &[Auto, F32, F16, Bf16],
    },
    fitting: |precision, _| match precision {
        Int8 => r#""f32" or "auto" with type = "candle", on cards also "f16" or "bf16""#,
        _ => r#""f32" or "auto" with type = "candle" on the processor"#,
    },
    usual_device: Device::Cpu,
    open: Open::Processor,
    unfit: |device| match device {
        Device::Cpu | Device::Cuda(_) => None,
        Device::WebGpu => Some(no_webgpu("candle")),
    },
    refusals: Refusals::USUAL,
};

const ONNX: BackendFacts = BackendFacts {
    kind: BackendType::Onnx,
    name: "onnx",
    usual_precision: Precision::F32,
    precisions: |device| match device {
        Device::Cpu => &[Auto, F32, Int8],
        Device::Cuda(_) | Device::WebGpu => &[Auto, F32, F16],
    },
    fitting: |_, device| match device {
        Device::Cpu => r#""f32", "int8" or "auto" with type = "onnx" on the processor"#,
        Device::Cuda(_) | Device::WebGpu => {
            r#""f32", "f16" or "auto" with type = "onnx" on a card"#
        }
    },
    usual_device: Device::Cpu,
    open: Open::All,
    unfit: |_| None,
    refusals: Refusals {
        file: None,
        max_memory: Some(
            "is not for type = \"onnx\": what ONNX Runtime takes is not known before it runs",
        ),
        ..Refusals::USUAL
    },
};

const CUDA: BackendFacts = BackendFacts {
    kind: BackendType::Cuda,
    name: "cuda",
    usual_precision: Precision::F16,
    precisions: |_| &[Auto, F16, Bf16],
    fitting: |_, _| r#""f16", "bf16" or "auto" with type = "cuda""#,
    usual_device: Device::Cuda(0),
    open: Open::Cards,
    unfit: |device| {
        match device {
        Device::Cuda(_) => None,
        Device::Cpu => Some(
            r#"is "cpu", and type = "cuda" runs on cards alone: "cuda:0" is the first, type = "cpu" runs here"#.into(),
        ),
        Device::WebGpu => Some(
            r#"is "webgpu", and type = "cuda" runs on NVIDIA cards alone: type = "onnx" runs an ONNX model there"#.into(),
        ),
    }
    },
    refusals: Refusals {
        threads: Some(r#"is not for type = "cuda": a card has threads of its own"#),
        max_memory: Some("is not for type = \"cuda\": the model is in the card's memory"),
        ..Refusals::USUAL
    },
};

/// The table, in the order of the variants.
const TABLE: &[BackendFacts] = &[CPU, CANDLE, ONNX, CUDA];
const COUNT: usize = TABLE.len();

fn no_webgpu(name: &str) -> String {
    format!(
        r#"is "webgpu", and type = "{name}" runs on the processor alone: type = "onnx" runs an ONNX model there"#
    )
}

impl BackendType {
    /// All types, in the order in which they are listed.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self::Cpu; COUNT];
        let mut i = 0;
        while i < COUNT {
            assert!(TABLE[i].kind as usize == i, "the table has another order");
            all[i] = TABLE[i].kind;
            i += 1;
        }
        all
    };

    pub(super) fn facts(self) -> &'static BackendFacts {
        &TABLE[self as usize]
    }

    /// Returns the type that no type means, by the device.
    #[must_use]
    pub fn usual(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) => Self::Cuda,
            Device::WebGpu => Self::Onnx,
        }
    }
}
