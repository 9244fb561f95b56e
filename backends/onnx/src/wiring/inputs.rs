//! The inputs of a model, by their names and number formats.

use super::{Element, Port};

/// An input whose role is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// True when the model takes 32-bit integers where most models take 64-bit ones.
    pub(crate) narrow: bool,
}

/// The numbers that an input takes, one for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ids,
    Mask,
    Segments,
    Positions,
}

/// Finds the role of each input.
pub(super) fn roles(inputs: &[Port]) -> Result<Vec<Input>, String> {
    let inputs: Vec<Input> = inputs.iter().map(input).collect::<Result<_, _>>()?;
    if inputs.iter().any(|input| input.role == Role::Ids) {
        Ok(inputs)
    } else {
        Err("the model has no input \"input_ids\"".into())
    }
}

fn input(port: &Port) -> Result<Input, String> {
    let role = match port.name.as_str() {
        "input_ids" | "input.1" | "input" => Role::Ids,
        "attention_mask" => Role::Mask,
        "token_type_ids" => Role::Segments,
        "position_ids" => Role::Positions,
        other => {
            let known = "input_ids, attention_mask, token_type_ids and position_ids";
            return Err(format!(
                "input \"{other}\" is not understood, supported are {known}"
            ));
        }
    };
    let narrow = match port.element {
        Element::I64 => false,
        Element::I32 => true,
        _ => return Err(format!("input \"{}\" is not of int64 or int32", port.name)),
    };
    Ok(Input {
        name: port.name.clone(),
        role,
        narrow,
    })
}
