//! Checks a backend's table: its settings fit each other, the type and the device.

use super::{BackendConfig, BackendType, Device, DeviceChoice};
use crate::problem::Report;

impl BackendConfig {
    /// Reports a file, pinned threads and devices that do not fit the type.
    pub(crate) fn check_type(&self, problem: &mut Report<'_>) {
        let refusals = &self.kind.facts().refusals;
        // No type was said, so that it may become one that takes a file.
        let may_take_one = self.is_open() && self.kind == BackendType::default();
        if let Some(reason) = refusals.file
            && self.file.is_some()
            && !may_take_one
        {
            problem("backend.file", reason.into());
        }
        if let Some(reason) = refusals.pin_threads
            && self.pin_threads.is_some()
        {
            problem("backend.pin_threads", reason.into());
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
        if self.is_open() {
            return;
        }
        let unfit = self.kind.facts().unfit;
        for device in self.all_devices() {
            let Some(message) = unfit(device) else {
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
        if let Some(reason) = self.kind.facts().refusals.threads
            && self.threads.is_some()
        {
            problem("backend.threads", reason.into());
        }
    }

    /// Reports a precision that the type does not have on its device.
    pub(crate) fn check_precision(&self, problem: &mut Report<'_>) {
        let device = self.all_devices().first().copied().unwrap_or_default();
        let has_it = self.kind.precisions(device).contains(&self.precision);
        // What does not fit a device is a reason not to take it, where it is open.
        if self.is_open() || has_it {
            return;
        }
        let fitting = (self.kind.facts().fitting)(self.precision, device);
        problem("backend.precision", format!("must be {fitting}"));
    }

    fn is_open(&self) -> bool {
        matches!(self.device, DeviceChoice::Auto(_))
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
