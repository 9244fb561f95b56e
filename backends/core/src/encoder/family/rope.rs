//! The fields that describe a rotation: `rope_theta` and `rope_scaling`, or `rope_parameters` as transformers writes them
//! since its version 5.

use serde_json::{Map, Value};

use super::super::fields::Fields;
use crate::encoder::Rotary;

/// Reads a rotation of the first `dimensions` numbers of a head.
pub(super) fn rotary(
    fields: &Fields<'_>,
    usual_base: f64,
    dimensions: usize,
) -> Result<Rotary, String> {
    let empty = Map::new();
    let object = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(found)) => Ok(Some(found)),
        Some(other) => Err(format!("{name} is {other}, expected an object")),
    };
    let parameters = object("rope_parameters")?;
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => object("rope_scaling")?,
    };
    let written = Fields(parameters.unwrap_or(&empty));
    let base = written.number_or("rope_theta", fields.number_or("rope_theta", usual_base)?)?;
    scaled(
        Rotary::new(base, dimensions),
        &Fields(scaling.unwrap_or(&empty)),
    )
}

/// Reads a rotation of one kind of layers, which `rope_parameters` names; else its base is in the field `base`.
pub(super) fn rotary_of_layers(
    fields: &Fields<'_>,
    kind: &str,
    (base, usual): (&str, f64),
    dimensions: usize,
) -> Result<Rotary, String> {
    let by_kind = fields.get("rope_parameters").and_then(|all| all.get(kind));
    match by_kind {
        Some(Value::Object(found)) => {
            let written = Fields(found);
            let base = written.number_or("rope_theta", usual)?;
            scaled(Rotary::new(base, dimensions), &written)
        }
        _ => Ok(Rotary::new(fields.number_or(base, usual)?, dimensions)),
    }
}

/// Applies the scaling that an object states.
fn scaled(rotary: Rotary, scaling: &Fields<'_>) -> Result<Rotary, String> {
    let kind = scaling.word_or("rope_type", scaling.word_or("type", "default")?)?;
    match kind {
        "default" => Ok(rotary),
        "linear" => Ok(rotary.slower(scaling.number_or("factor", 1.0)?)),
        other => Err(format!(
            "the rotation of positions is scaled by \"{other}\", supported is \"default\" or \"linear\""
        )),
    }
}
