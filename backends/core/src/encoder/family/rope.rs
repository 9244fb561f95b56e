//! The fields that describe a rotation: `rope_theta` and `rope_scaling`, or `rope_parameters` as transformers writes them
//! since its version 5.
//!
//! Source: transformers 5.24, `modeling_rope_utils.py`, `convert_rope_params_to_dict`.

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
    let written = Fields(written(fields)?.unwrap_or(&empty));
    let base = match written.is_written("rope_theta") {
        true => written.positive_or("rope_theta", usual_base)?,
        false => fields.positive_or("rope_theta", usual_base)?,
    };
    scaled(base, dimensions, &written)
}

/// Reads a rotation of one kind of layers: of the object of that name where `rope_parameters` has one for each kind, else by the
/// base in the field `base`. `usual` is the base where none is written.
pub(super) fn rotary_of_layers(
    fields: &Fields<'_>,
    kind: &str,
    (base, usual): (&str, f64),
    dimensions: usize,
) -> Result<Rotary, String> {
    let found = written(fields)?;
    let by_kind = found.and_then(|all| all.get(kind));
    let base = fields.positive_or(base, usual)?;
    match by_kind {
        Some(Value::Object(of_kind)) => {
            let of_kind = Fields(of_kind);
            scaled(
                of_kind.positive_or("rope_theta", base)?,
                dimensions,
                &of_kind,
            )
        }
        Some(other) => Err(format!(
            "rope_parameters has {kind} = {other}, expected an object"
        )),
        // What is said for all layers, and not of which kind, is obeyed where it changes nothing alone.
        None => scaled_none(found, base, dimensions),
    }
}

/// The object that describes the rotation; none where there is none.
fn written<'a>(fields: &Fields<'a>) -> Result<Option<&'a Map<String, Value>>, String> {
    let object = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Object(found)) => Ok(Some(found)),
        Some(other) => Err(format!("{name} is {other}, expected an object")),
    };
    match (object("rope_scaling")?, object("rope_parameters")?) {
        (Some(_), Some(_)) => {
            Err("rope_scaling and rope_parameters are both set, supported is one of them".into())
        }
        (found, None) | (None, found) => Ok(found),
    }
}

/// Refuses a scaling where layers of several kinds have rotations of their own, and it is not said for which.
fn scaled_none(
    found: Option<&Map<String, Value>>,
    base: f64,
    dimensions: usize,
) -> Result<Rotary, String> {
    let empty = Map::new();
    let written = Fields(found.unwrap_or(&empty));
    let kind = written.word_or("rope_type", written.word_or("type", "default")?)?;
    match kind {
        "default" => Ok(Rotary::new(base, dimensions)),
        other => Err(format!(
            "the rotation of positions is scaled by \"{other}\", supported is \"default\" in this family"
        )),
    }
}

/// The rotation of a base, with the scaling that an object states.
fn scaled(base: f64, dimensions: usize, scaling: &Fields<'_>) -> Result<Rotary, String> {
    if !dimensions.is_multiple_of(2) {
        return Err(format!(
            "heads have {dimensions} numbers that turn by their position, expected an even number"
        ));
    }
    if scaling.number_or("partial_rotary_factor", 1.0)? != 1.0 {
        return Err("partial_rotary_factor is set, supported is 1".into());
    }
    let rotary = Rotary::new(base, dimensions);
    let kind = scaling.word_or("rope_type", scaling.word_or("type", "default")?)?;
    match kind {
        "default" => Ok(rotary),
        "linear" if scaling.get("factor").is_none() => {
            Err("the rotation of positions is scaled by \"linear\" and has no factor".into())
        }
        "linear" => Ok(rotary.slower(scaling.positive_or("factor", 1.0)?)),
        other => Err(format!(
            "the rotation of positions is scaled by \"{other}\", supported is \"default\" or \"linear\""
        )),
    }
}
