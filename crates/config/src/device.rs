//! `backend.device` and `backend.devices`: where a model runs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BackendConfig, BackendType, PrecisionChoice};

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA card, by the number that the driver gives it, from 0.
    Cuda(usize),
    /// A graphics card of any maker, by WebGPU.
    WebGpu,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::WebGpu => f.write_str("webgpu"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_prefix("cuda").map(|rest| match rest {
            "" => Some(0),
            rest => rest
                .strip_prefix(':')
                .and_then(|number| number.parse().ok()),
        });
        match (text.as_str(), number.flatten()) {
            ("cpu", _) => Ok(Self::Cpu),
            ("webgpu", _) => Ok(Self::WebGpu),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(format!(
                r#""{text}" is no device: expected "auto", "cpu", "cuda:0" for the first NVIDIA card, or "webgpu""#
            )),
        }
    }
}

/// A device, or the best that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first that can run the model, of those that its type runs on; with type `cpu`, which is what no type means, of all.
    /// With the precision that was said: what is usual depends on the device.
    Auto(Option<PrecisionChoice>),
    /// This one.
    At(Device),
}

impl Default for DeviceChoice {
    fn default() -> Self {
        Self::At(Device::Cpu)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto(_) => f.write_str("auto"),
            Self::At(device) => device.fmt(f),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(device: DeviceChoice) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto(None)),
            _ => Device::try_from(text).map(Self::At),
        }
    }
}

impl BackendConfig {
    /// Returns a copy for one device, with the type that runs there. The precision is the stated one, or else the usual
    /// one of the type; settings of other types are removed.
    #[must_use]
    pub fn at(&self, kind: BackendType, device: Device, said: Option<PrecisionChoice>) -> Self {
        Self {
            kind,
            device: DeviceChoice::At(device),
            devices: Vec::new(),
            precision: said.unwrap_or(usual_precision(kind)),
            threads: self.threads.filter(|_| device == Device::Cpu),
            pin_threads: self.pin_threads.filter(|_| kind == BackendType::Cpu),
            file: self.file.clone().filter(|_| kind == BackendType::Onnx),
        }
    }

    /// The one device that was said; the processor where it is open, which configurations that were resolved do not leave.
    #[must_use]
    pub fn one_device(&self) -> Device {
        match self.device {
            DeviceChoice::At(device) => device,
            DeviceChoice::Auto(_) => Device::Cpu,
        }
    }

    /// The devices that replicas run on: those that were said, or the one.
    #[must_use]
    pub fn all_devices(&self) -> Vec<Device> {
        match self.devices.is_empty() {
            true => vec![self.one_device()],
            false => self.devices.clone(),
        }
    }

    /// Reports devices that fit neither each other nor the type, with the key and a message.
    pub(super) fn check_devices(&self, problem: &mut dyn FnMut(&str, String)) {
        if let Some(first) = self.devices.first()
            && self.device != DeviceChoice::At(*first)
        {
            let message = "is there beside backend.device: one of them is enough".into();
            return problem("backend.devices", message);
        }
        for (i, device) in self.devices.iter().enumerate() {
            if self.devices[..i].contains(device) {
                let message = format!(r#"names "{device}" twice: replicas = 2 runs two on each"#);
                problem("backend.devices", message);
            }
            if !matches!(device, Device::Cuda(_)) {
                let message = format!(
                    r#"names "{device}": several are for NVIDIA cards, such as ["cuda:0", "cuda:1"]"#
                );
                problem("backend.devices", message);
            }
        }
        let kind = self.kind;
        for device in self.all_devices() {
            let Some(message) = unfit(kind, self.device, device) else {
                continue;
            };
            let key = match self.devices.is_empty() {
                true => "backend.device",
                false => "backend.devices",
            };
            problem(key, message);
        }
    }
}

fn unfit(kind: BackendType, choice: DeviceChoice, device: Device) -> Option<String> {
    match (kind, device) {
        (BackendType::Cuda, Device::Cpu) if !matches!(choice, DeviceChoice::Auto(_)) => Some(
            r#"is "cpu", and type = "cuda" runs on cards alone: "cuda:0" is the first, type = "cpu" runs here"#.into(),
        ),
        (BackendType::Cuda, Device::WebGpu) => Some(
            r#"is "webgpu", and type = "cuda" runs on NVIDIA cards alone: type = "onnx" runs an ONNX model there"#.into(),
        ),
        (BackendType::Cpu, Device::Cuda(_)) => Some(format!(
            r#"is "{device}", and type = "cpu" runs on the processor alone: leave type out, and the device chooses it"#
        )),
        (BackendType::Cpu | BackendType::Candle, Device::WebGpu) => Some(format!(
            r#"is "webgpu", and type = "{kind}" runs on the processor alone: type = "onnx" runs an ONNX model there"#
        )),
        _ => None,
    }
}

/// The type that no type means, by the device.
pub(super) fn usual_type(device: Device) -> BackendType {
    match device {
        Device::Cpu => BackendType::Cpu,
        Device::Cuda(_) => BackendType::Cuda,
        Device::WebGpu => BackendType::Onnx,
    }
}

impl BackendType {
    /// The precisions that it has on a device.
    #[must_use]
    pub fn precisions(self, device: Device) -> &'static [PrecisionChoice] {
        use PrecisionChoice::{Auto, Bf16, F16, F32, Int8};
        match (self, device) {
            (Self::Cuda, _) => &[Auto, F16, Bf16],
            (Self::Cpu, _) => &[Auto, F32, Bf16, Int8],
            (Self::Candle, Device::Cpu) => &[Auto, F32],
            (Self::Candle, _) => &[Auto, F32, F16, Bf16],
            (Self::Onnx, Device::Cpu) => &[Auto, F32, Int8],
            (Self::Onnx, _) => &[Auto, F32, F16],
        }
    }
}

/// The precision that none means.
pub(super) fn usual_precision(kind: BackendType) -> PrecisionChoice {
    match kind {
        BackendType::Cuda => PrecisionChoice::F16,
        BackendType::Cpu | BackendType::Candle | BackendType::Onnx => PrecisionChoice::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    fn backend(text: &str) -> BackendConfig {
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

    #[test]
    fn devices_that_do_not_fit_are_named_with_what_would_be_right() {
        for (text, key, expected) in [
            (
                r#"type = "cpu", device = "cuda:0""#,
                "backend.device",
                "leave type out",
            ),
            (
                r#"type = "cuda", device = "cpu""#,
                "backend.device",
                "cards alone",
            ),
            (
                r#"type = "cuda", device = "webgpu""#,
                "backend.device",
                r#"type = "onnx""#,
            ),
            (
                r#"type = "candle", device = "webgpu""#,
                "backend.device",
                r#"type = "onnx""#,
            ),
            (
                r#"devices = ["cuda:0", "cuda:0"]"#,
                "backend.devices",
                "twice",
            ),
            (
                r#"type = "onnx", devices = ["cuda:0", "cpu"]"#,
                "backend.devices",
                "NVIDIA cards",
            ),
            (
                r#"device = "cpu", devices = ["cuda:0"]"#,
                "backend.devices",
                "one of them is enough",
            ),
            (
                r#"type = "cpu", devices = ["cuda:0"]"#,
                "backend.devices",
                "leave type out",
            ),
        ] {
            let mut problems = Vec::new();
            backend(text)
                .check_devices(&mut |key, message| problems.push((key.to_owned(), message)));
            let [(found, message)] = &problems[..] else {
                panic!("{text}: {problems:?}");
            };
            assert_eq!(found, key, "{text}");
            assert!(message.contains(expected), "{text}: {message}");
        }
        for fine in [
            r#"device = "auto""#,
            r#"type = "cuda", device = "auto""#,
            r#"devices = ["cuda:0", "cuda:1"]"#,
        ] {
            backend(fine).check_devices(&mut |key, message| panic!("{fine}: {key} {message}"));
        }
    }

    #[test]
    fn what_is_no_device_is_named() {
        let read = toml::from_str::<ModelConfig>(r#"backend = { device = "gpu" }"#);
        let error = read.unwrap_err().to_string();
        assert!(
            error.contains(r#""gpu" is no device"#) && error.contains("webgpu"),
            "{error}"
        );
    }
}
