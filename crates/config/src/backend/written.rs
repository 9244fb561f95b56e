//! The written form of a backend's table: what is left out of it depends on what is there.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackendConfig, BackendType, Device, DeviceChoice, PrecisionChoice, table::Open};

/// The written form of [`BackendConfig`]: the values of omitted settings depend on the type.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    /// `"cpu"` runs the model's own weights on oneDNN, and is the fastest; without oneDNN's library such a model runs
    /// with candle. `"candle"` runs them in Rust alone, `"onnx"` runs the ONNX variant (`embedgate convert` writes
    /// one), `"cuda"` runs them on an NVIDIA card (`docs/gpu.md`).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<BackendType>,
    /// The device: `"cpu"`; `"cuda:0"` and so on, an NVIDIA card, with `type = "cuda"`, `"onnx"` or, in builds for it,
    /// `"candle"`; `"webgpu"`, any graphics card, with `type = "onnx"`; or `"auto"`, the first of those that can run
    /// it, in the order cuda, webgpu, cpu. Without type, the device chooses it: `"cuda"` for `"cuda:0"`, `"onnx"` for
    /// `"webgpu"`. See `docs/gpu.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceChoice>,
    /// Several NVIDIA cards in the place of one device, each with as many replicas as `replicas` says, behind one
    /// queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Devices>,
    /// Number format of the encoder's matrix products: `"f32"`; with `type = "cpu"` also `"bf16"`, `"int8"`, or
    /// `"auto"`, which is bf16 where the processor has instructions for it; with `type = "onnx"` also `"int8"` on the
    /// processor and `"f16"` on cards (`embedgate convert` writes them); with `type = "cuda"` `"f16"`, which is its
    /// default, `"bf16"`, or `"auto"`, which is f16.
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<PrecisionChoice>,
    /// Threads of a matrix product. Without it: one a physical core, shared among the replicas.
    threads: Option<usize>,
    /// True where each thread stays on a core, with `type = "cpu"`: on one of its own while there are any. Without it:
    /// where the threads of all replicas are as many as the physical cores that this process may use, without a quota
    /// below them.
    pin_threads: Option<bool>,
    /// The ONNX file, for `type = "onnx"`. Without it: `onnx/model.onnx` or `model.onnx` in the model's folder,
    /// `model_int8.onnx` for int8; on cards `model_gpu.onnx` or `model_gpu_f16.onnx` first. One that `embedgate
    /// convert` did not write is taken to be in the precision that is set.
    file: Option<PathBuf>,
}

impl From<Written> for BackendConfig {
    fn from(written: Written) -> Self {
        let devices = written.devices.unwrap_or_default().0;
        let said = written.kind.map(BackendType::facts);
        let usual = || match devices.first() {
            Some(first) => *first,
            None => said.map_or(Device::Cpu, |facts| facts.usual_device),
        };
        let device = written.device.unwrap_or_else(|| DeviceChoice::At(usual()));
        let kind = written.kind.unwrap_or(match device {
            DeviceChoice::Auto(_) => BackendType::default(),
            DeviceChoice::At(device) => BackendType::usual(device),
        });
        let is_closed = said.is_some_and(|facts| facts.open == Open::Processor);
        let device = match device {
            DeviceChoice::Auto(_) if is_closed => DeviceChoice::At(Device::Cpu),
            DeviceChoice::Auto(_) => DeviceChoice::Auto(written.precision),
            at @ DeviceChoice::At(_) => at,
        };
        Self {
            kind,
            device,
            devices,
            precision: written.precision.unwrap_or(kind.usual_precision().into()),
            threads: written.threads,
            pin_threads: written.pin_threads,
            file: written.file,
        }
    }
}

/// As it can be read again: what `auto` leaves open is left out.
impl From<BackendConfig> for Written {
    fn from(config: BackendConfig) -> Self {
        let (kind, precision) = match (config.device, config.kind) {
            (DeviceChoice::Auto(said), kind) => (
                Some(kind).filter(|kind| *kind != BackendType::default()),
                said,
            ),
            (DeviceChoice::At(_), kind) => (Some(kind), Some(config.precision)),
        };
        Self {
            kind,
            device: Some(config.device),
            devices: (!config.devices.is_empty()).then_some(Devices(config.devices)),
            precision,
            threads: config.threads,
            pin_threads: config.pin_threads,
            file: config.file,
        }
    }
}

/// At least one device.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Device>")]
#[schemars(extend("minItems" = 1))]
struct Devices(Vec<Device>);

impl TryFrom<Vec<Device>> for Devices {
    type Error = &'static str;

    fn try_from(devices: Vec<Device>) -> Result<Self, &'static str> {
        match devices.is_empty() {
            true => Err(r#"names no device: ["cuda:0", "cuda:1"] are two cards"#),
            false => Ok(Self(devices)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ModelConfig;

    pub(in super::super) fn backend(text: &str) -> BackendConfig {
        toml::from_str::<ModelConfig>(&format!("backend = {{ {text} }}"))
            .unwrap()
            .backend
    }

    #[test]
    fn the_device_chooses_the_type_and_the_type_the_device_and_the_precision() {
        for (text, kind, device, precision) in [
            ("", BackendType::Cpu, "cpu", PrecisionChoice::F32),
            (
                r#"device = "cuda:2""#,
                BackendType::Cuda,
                "cuda:2",
                PrecisionChoice::F16,
            ),
            (
                r#"device = "cuda""#,
                BackendType::Cuda,
                "cuda:0",
                PrecisionChoice::F16,
            ),
            (
                r#"device = "webgpu""#,
                BackendType::Onnx,
                "webgpu",
                PrecisionChoice::F32,
            ),
            (
                r#"type = "cuda""#,
                BackendType::Cuda,
                "cuda:0",
                PrecisionChoice::F16,
            ),
            (
                r#"type = "onnx", device = "cuda:1""#,
                BackendType::Onnx,
                "cuda:1",
                PrecisionChoice::F32,
            ),
            (
                r#"type = "cuda", precision = "bf16""#,
                BackendType::Cuda,
                "cuda:0",
                PrecisionChoice::Bf16,
            ),
            // The processor is all that these run on.
            (
                r#"type = "cpu", device = "auto""#,
                BackendType::Cpu,
                "cpu",
                PrecisionChoice::F32,
            ),
            (
                r#"type = "candle", device = "auto""#,
                BackendType::Candle,
                "cpu",
                PrecisionChoice::F32,
            ),
            (
                r#"devices = ["cuda:1", "cuda:3"]"#,
                BackendType::Cuda,
                "cuda:1",
                PrecisionChoice::F16,
            ),
        ] {
            let read = backend(text);
            assert_eq!(read.kind, kind, "{text}");
            assert_eq!(read.device.to_string(), device, "{text}");
            assert_eq!(read.precision, precision, "{text}");
        }
    }

    #[test]
    fn auto_keeps_what_was_said_of_the_precision() {
        for (text, kind, said) in [
            (r#"device = "auto""#, BackendType::Cpu, None),
            (
                r#"device = "auto", precision = "f32""#,
                BackendType::Cpu,
                Some(PrecisionChoice::F32),
            ),
            (r#"type = "onnx", device = "auto""#, BackendType::Onnx, None),
        ] {
            let read = backend(text);
            assert_eq!(
                (read.kind, read.device),
                (kind, DeviceChoice::Auto(said)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in [
            r#"device = "auto""#,
            r#"device = "auto", precision = "bf16""#,
            r#"type = "onnx", device = "auto""#,
            r#"devices = ["cuda:0", "cuda:1"]"#,
            r#"type = "cpu", threads = 2"#,
        ] {
            let read = backend(text);
            let shown = toml::to_string(&read).unwrap();
            assert_eq!(
                toml::from_str::<BackendConfig>(&shown).unwrap(),
                read,
                "{text}: {shown}"
            );
        }
    }
}
