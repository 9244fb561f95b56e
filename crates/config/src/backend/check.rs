//! Checks a backend's table: its settings fit each other, the type and the device.

use super::{BackendConfig, BackendType, Device, DeviceChoice, PrecisionChoice};
use crate::problem::Report;

impl BackendConfig {
    /// Reports a file, pinned threads and devices that do not fit the type.
    pub(crate) fn check_type(&self, problem: &mut Report<'_>) {
        // No type was said, so that it may become onnx.
        let may_be_onnx = self.is_open() && self.kind == BackendType::Cpu;
        if self.file.is_some() && self.kind != BackendType::Onnx && !may_be_onnx {
            problem(
                "backend.file",
                "is for type = \"onnx\"; the others read the weights of the model's folder".into(),
            );
        }
        if self.pin_threads.is_some() && self.kind != BackendType::Cpu {
            problem(
                "backend.pin_threads",
                "is for type = \"cpu\"; the others leave their threads to the system".into(),
            );
        }
        self.check_devices(problem);
    }

    /// Reports devices that fit neither each other nor the type, with the key and a message.
    fn check_devices(&self, problem: &mut Report<'_>) {
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

    /// Reports a number of threads where a card has its own.
    pub(crate) fn check_threads(&self, problem: &mut Report<'_>) {
        if self.threads.is_some() && self.kind == BackendType::Cuda {
            problem(
                "backend.threads",
                r#"is not for type = "cuda": a card has threads of its own"#.into(),
            );
        }
    }

    /// Reports a precision that the type does not have on its device.
    pub(crate) fn check_precision(&self, problem: &mut Report<'_>) {
        let Self {
            kind, precision, ..
        } = *self;
        let first = self.all_devices().first().copied();
        let has_it = kind
            .precisions(first.unwrap_or_default())
            .contains(&precision);
        // What does not fit a device is a reason not to take it, where it is open.
        if self.is_open() || has_it {
            return;
        }
        let fitting = match (kind, self.is_on_card()) {
            (BackendType::Candle, _) if precision == PrecisionChoice::Int8 => {
                r#""f32" or "auto" with type = "candle", on cards also "f16" or "bf16""#
            }
            (BackendType::Candle, _) => r#""f32" or "auto" with type = "candle" on the processor"#,
            (BackendType::Onnx, false) => {
                r#""f32", "int8" or "auto" with type = "onnx" on the processor"#
            }
            (BackendType::Onnx, true) => r#""f32", "f16" or "auto" with type = "onnx" on a card"#,
            (BackendType::Cpu, _) => r#""f32", "bf16", "int8" or "auto" with type = "cpu""#,
            (BackendType::Cuda, _) => r#""f16", "bf16" or "auto" with type = "cuda""#,
        };
        problem("backend.precision", format!("must be {fitting}"));
    }

    fn is_open(&self) -> bool {
        matches!(self.device, DeviceChoice::Auto(_))
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

#[cfg(test)]
mod tests {
    use super::super::written::tests::backend;

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
}
