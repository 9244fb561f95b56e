//! The devices that a model may run on, the best first, where the configuration leaves that open.

use embedgate_config::{BackendType, Device, DeviceChoice, ModelConfig, PrecisionChoice};
use serde::Serialize;

use super::{engine, load_context::LoadContext, placement::Placement};

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

/// A device that a model may run on: its place there, or the reason why there is none.
pub(crate) struct DeviceOption {
    /// Such as `cuda:0`, or `cuda` where there is no card at all.
    pub(crate) device: String,
    place: Result<Placement, String>,
    /// True where a card of any maker is yet to be looked for.
    needs_card: bool,
}

impl DeviceOption {
    /// The model's place on the device. Looks for a graphics card only now, at its turn.
    ///
    /// # Errors
    /// The reason why the model does not run there.
    pub(crate) fn take(self, context: &LoadContext) -> Result<Placement, String> {
        let place = self.place?;
        if self.needs_card {
            n_cards(place.kind, context)?;
        }
        Ok(place)
    }
}

/// The devices that a model may run on: those of its configuration; with `device = "auto"` each NVIDIA card, any graphics card, and the
/// processor.
pub(crate) fn options(config: &ModelConfig, context: &LoadContext) -> Vec<DeviceOption> {
    let backend = &config.backend;
    let said = match backend.device {
        DeviceChoice::Auto(said) => said,
        DeviceChoice::At(device) => {
            let place = Placement::stated(backend, device);
            let devices: Vec<_> = place.devices().map(|device| device.to_string()).collect();
            return vec![DeviceOption {
                device: devices.join(","),
                place: Ok(place),
                needs_card: false,
            }];
        }
    };
    let kind_on = |device| match backend.kind == BackendType::default() {
        // No type was said.
        true => BackendType::usual(device),
        false => backend.kind,
    };
    let on = |device: Device| {
        let kind = kind_on(device);
        DeviceOption {
            device: device.to_string(),
            place: fitting(kind, device, said)
                .and_then(|()| one_alone(device, config))
                .map(|()| Placement::stated(backend, device).on(kind, said)),
            needs_card: device == Device::WebGpu,
        }
    };
    let cards = match n_cards(BackendType::usual(Device::Cuda(0)), context) {
        Ok(n) => (0..n).map(Device::Cuda).map(on).collect(),
        Err(reason) => vec![DeviceOption {
            device: "cuda".into(),
            place: Err(reason),
            needs_card: false,
        }],
    };
    let others = match backend.kind.has_processor() {
        false => vec![],
        true => vec![on(Device::WebGpu), on(Device::Cpu)],
    };
    cards.into_iter().chain(others).collect()
}

/// Counts the cards that a type of backend could run on, at least one.
///
/// # Errors
/// The reason why there is none.
fn n_cards(kind: BackendType, context: &LoadContext) -> Result<usize, String> {
    let engine = engine::of(kind).map_err(|missing| missing.to_string())?;
    engine.n_cards(context)
}

/// Says what to write in the configuration where there is an NVIDIA card and every model runs on the processor.
pub(crate) fn advice<'a>(
    models: impl IntoIterator<Item = &'a ModelConfig>,
    context: &LoadContext,
) -> Option<String> {
    let on_processor = |model: &ModelConfig| model.backend.device == DeviceChoice::At(Device::Cpu);
    if !models.into_iter().all(on_processor) {
        return None;
    }
    let (device, name) = engine::all().find_map(|engine| engine.usable_card(context))?;
    Some(format!(
        "this machine has a {name}: `backend = {{ device = \"{device}\" }}` in [models.NAME] runs a model there (docs/gpu.md)"
    ))
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
        Some(said) if !kind.precisions(device).contains(&said) => {
            // Each type has `auto` everywhere.
            let said = said.said().map(|said| said.to_string());
            let said = said.unwrap_or_else(|| "auto".into());
            Err(format!("type = \"{kind}\" has no {said} there"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(backend: &str) -> Vec<DeviceOption> {
        let config = toml::from_str(&format!("backend = {{ {backend} }}")).unwrap();
        options(&config, &LoadContext::default())
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
            assert!(only.place.is_ok());
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
            let last = all.last().unwrap().place.as_ref().unwrap();
            assert_eq!(last.kind, kind, "{backend}");
            assert_eq!(last.precision, precision, "{backend}");
            assert_eq!(last.device, Device::Cpu);
        }
        let all = options_of(r#"device = "auto", precision = "f16""#);
        let refused = all.last().unwrap().place.as_ref().unwrap_err();
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
