//! The devices that a model may run on, the best first, where the configuration leaves that open.

use embedgate_config::{BackendType, Device, DeviceChoice, ModelConfig, PrecisionChoice};
use serde::Serialize;

use super::surroundings::Surroundings;

/// A device that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// Such as `cuda:0`.
    pub(crate) device: String,
    /// The thing that is missing, or the failure.
    pub(crate) reason: String,
}

impl Skipped {
    /// Says it in the log, as of this model.
    pub(crate) fn new(model: &str, device: &str, reason: String) -> Self {
        tracing::warn!(
            model.name = model,
            device,
            "model {model} does not run on {device}: {reason}"
        );
        Self {
            device: device.into(),
            reason,
        }
    }
}

/// A device that a model may run on: the configuration that runs it there, or the reason why none does.
pub(crate) struct DeviceOption {
    /// Such as `cuda:0`, or `cuda` where there is no card at all.
    pub(crate) device: String,
    config: Result<ModelConfig, String>,
    /// True where a processor that plays the device is refused: the processor's own backend is faster.
    needs_hardware: bool,
}

impl DeviceOption {
    /// The configuration with the device said. Looks for a graphics card only now, at its turn.
    ///
    /// # Errors
    /// The reason why the model does not run there.
    pub(crate) fn take(self, surroundings: &Surroundings) -> Result<ModelConfig, String> {
        let config = self.config?;
        if self.needs_hardware {
            check_hardware(surroundings)?;
        }
        Ok(config)
    }
}

/// The devices that a model may run on: those of its configuration; with `device = "auto"` each NVIDIA card, any graphics card, and the
/// processor.
pub(crate) fn options(config: &ModelConfig, surroundings: &Surroundings) -> Vec<DeviceOption> {
    let backend = &config.backend;
    let DeviceChoice::Auto(said) = backend.device else {
        let devices = backend.all_devices().into_iter();
        let devices: Vec<_> = devices.map(|device| device.to_string()).collect();
        return vec![DeviceOption {
            device: devices.join(","),
            config: Ok(config.clone()),
            needs_hardware: false,
        }];
    };
    let on = |kind, device: Device| DeviceOption {
        device: device.to_string(),
        config: fitting(kind, device, said)
            .and_then(|()| one_alone(device, config))
            .map(|()| ModelConfig {
                backend: backend.at(kind, device, said),
                ..config.clone()
            }),
        needs_hardware: device == Device::WebGpu,
    };
    let kind_on = |device| match (backend.kind, device) {
        // No type was said.
        (BackendType::Cpu, Device::Cuda(_)) => BackendType::Cuda,
        (BackendType::Cpu, Device::WebGpu) => BackendType::Onnx,
        (kind, _) => kind,
    };
    let cards = match n_cards(surroundings) {
        Ok(n) => (0..n)
            .map(Device::Cuda)
            .map(|device| on(kind_on(device), device))
            .collect(),
        Err(reason) => vec![DeviceOption {
            device: "cuda".into(),
            config: Err(reason),
            needs_hardware: false,
        }],
    };
    let others = match backend.kind {
        BackendType::Cuda => vec![],
        _ => vec![
            on(kind_on(Device::WebGpu), Device::WebGpu),
            on(kind_on(Device::Cpu), Device::Cpu),
        ],
    };
    cards.into_iter().chain(others).collect()
}

/// The number of NVIDIA cards, at least one; or why there is none.
#[cfg(feature = "cuda")]
fn n_cards(surroundings: &Surroundings) -> Result<usize, String> {
    match embedgate_cuda::Device::list(surroundings.cuda()) {
        Ok(cards) if !cards.is_empty() => Ok(cards.len()),
        Err(error) if !error.is_no_device() => Err(error.to_string()),
        _ => Err("the driver finds no NVIDIA card".into()),
    }
}

/// Says what to write in the configuration where there is an NVIDIA card and every model runs on the processor.
#[cfg(feature = "cuda")]
pub(crate) fn advice<'a>(
    models: impl IntoIterator<Item = &'a ModelConfig>,
    surroundings: &Surroundings,
) -> Option<String> {
    let on_processor = |model: &ModelConfig| model.backend.device == DeviceChoice::At(Device::Cpu);
    if !models.into_iter().all(on_processor) {
        return None;
    }
    let listed = embedgate_cuda::Device::list(surroundings.cuda()).ok()?;
    let usable = listed.iter().enumerate().find(|(_, card)| card.is_usable());
    let (number, card) = usable?;
    let name = &card.name;
    Some(format!(
        "this machine has a {name}: `backend = {{ device = \"cuda:{number}\" }}` in [models.NAME] runs a model there (docs/gpu.md)"
    ))
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn advice<'a>(
    _: impl IntoIterator<Item = &'a ModelConfig>,
    _: &Surroundings,
) -> Option<String> {
    None
}

#[cfg(not(feature = "cuda"))]
fn n_cards(_: &Surroundings) -> Result<usize, String> {
    Err("this embedgate was built without the cuda backend".into())
}

#[cfg(feature = "onnx")]
fn check_hardware(surroundings: &Surroundings) -> Result<(), String> {
    let adapter = embedgate_onnx::device::adapter(&surroundings.onnx_libraries());
    match adapter.map_err(|error| error.to_string())?.is_hardware {
        true => Ok(()),
        false => Err("a processor plays the graphics card".into()),
    }
}

#[cfg(not(feature = "onnx"))]
fn check_hardware(_: &Surroundings) -> Result<(), String> {
    Err("this embedgate was built without the onnx backend".into())
}

/// Refuses more replicas than WebGPU has.
fn one_alone(device: Device, config: &ModelConfig) -> Result<(), String> {
    match (device, config.replicas.get()) {
        (Device::WebGpu, 2..) => Err("it runs one replica, replicas says more".into()),
        _ => Ok(()),
    }
}

/// Refuses a precision that was said and is not there.
///
/// # Errors
/// The type and the precision.
pub(crate) fn fitting(
    kind: BackendType,
    device: Device,
    said: Option<PrecisionChoice>,
) -> Result<(), String> {
    match said {
        Some(said) if !kind.precisions(device).contains(&said) => Err(format!(
            "type = \"{kind}\" has no {} there",
            said.said().unwrap_or_default()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(backend: &str) -> Vec<DeviceOption> {
        let config = toml::from_str(&format!("backend = {{ {backend} }}")).unwrap();
        options(&config, &Surroundings::default())
    }

    #[test]
    fn what_is_said_is_the_only_candidate() {
        for (backend, device) in [
            (r#"type = "candle""#, "cpu"),
            (r#"device = "cuda:1""#, "cuda:1"),
            (r#"devices = ["cuda:1", "cuda:0"]"#, "cuda:1,cuda:0"),
        ] {
            let [only] = &options_of(backend)[..] else {
                panic!("{backend}");
            };
            assert_eq!(only.device, device);
            assert!(only.config.is_ok());
        }
    }

    #[test]
    fn auto_ends_at_the_processor_with_the_precision_that_was_said() {
        for (backend, kind, precision) in [
            (r#"device = "auto""#, BackendType::Cpu, PrecisionChoice::F32),
            (
                r#"device = "auto", precision = "bf16""#,
                BackendType::Cpu,
                PrecisionChoice::Bf16,
            ),
            (
                r#"type = "onnx", device = "auto", precision = "int8""#,
                BackendType::Onnx,
                PrecisionChoice::Int8,
            ),
        ] {
            let all = options_of(backend);
            let last = all.last().unwrap().config.as_ref().unwrap();
            assert_eq!(last.backend.kind, kind, "{backend}");
            assert_eq!(last.backend.precision, precision, "{backend}");
            assert_eq!(last.backend.device, DeviceChoice::At(Device::Cpu));
        }
        let all = options_of(r#"device = "auto", precision = "f16""#);
        let refused = all.last().unwrap().config.as_ref().unwrap_err();
        assert!(refused.contains("no f16"), "{refused}");
    }

    #[test]
    fn cards_alone_are_tried_for_the_type_that_runs_on_cards() {
        let all = options_of(r#"type = "cuda", device = "auto""#);
        assert!(
            all.iter()
                .all(|candidate| candidate.device.starts_with("cuda"))
        );
    }
}
