//! `backend.device` and `backend.devices`: where a model runs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PrecisionChoice;

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

#[cfg(test)]
mod tests {
    use crate::ModelConfig;

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
