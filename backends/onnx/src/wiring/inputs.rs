//! The inputs of a model, by their names and number formats.

use embedgate_core::encoder::Attention;

use super::{Element, Port};

/// An input whose role is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) element: Element,
}

/// The meaning of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The tokens, and three more with a number for each of them.
    Ids,
    Mask,
    Segments,
    Positions,
    /// Keys or values of the tokens before the first, `heads` of `size` numbers each: there are none.
    Past {
        heads: usize,
        size: usize,
    },
    /// The place of the adapter that is applied, a single number, in a list where the model has it so.
    Task {
        is_list: bool,
    },
}

/// The beginnings of names of inputs for what was computed before: optimum's and the builder's of onnxruntime-genai.
const PAST: [&str; 2] = ["past_key_values.", "past."];

/// Finds the role of each input of a model whose attention has this shape, as far as it is known.
pub(super) fn roles(inputs: &[Port], attention: Option<&Attention>) -> Result<Vec<Input>, String> {
    let role = |port| input(port, attention);
    let inputs: Vec<Input> = inputs.iter().map(role).collect::<Result<_, _>>()?;
    if inputs.iter().any(|input| input.role == Role::Ids) {
        Ok(inputs)
    } else {
        Err("the model has no input \"input_ids\"".into())
    }
}

fn input(port: &Port, attention: Option<&Attention>) -> Result<Input, String> {
    let role = match port.name.as_str() {
        "input_ids" | "input.1" | "input" => Role::Ids,
        "attention_mask" => Role::Mask,
        "token_type_ids" => Role::Segments,
        "position_ids" => Role::Positions,
        "task_id" if port.shape.len() < 2 => Role::Task {
            is_list: !port.shape.is_empty(),
        },
        name if PAST.iter().any(|start| name.starts_with(start)) => past(port, attention)?,
        other => {
            let known = "input_ids, attention_mask, token_type_ids, position_ids, past_key_values and task_id";
            return Err(format!(
                "input \"{other}\" is not understood, supported are {known}"
            ));
        }
    };
    let formats: [(Element, &str); 2] = match role {
        Role::Past { .. } => [(Element::F32, "f32"), (Element::F16, "f16")],
        _ => [(Element::I64, "int64"), (Element::I32, "int32")],
    };
    if !formats.iter().any(|(element, _)| *element == port.element) {
        let [(_, one), (_, other)] = formats;
        return Err(format!(
            "input \"{}\" is not of {one} or {other}",
            port.name
        ));
    }
    Ok(Input {
        name: port.name.clone(),
        role,
        element: port.element,
    })
}

/// Sizes that a model leaves open are those of its attention.
fn past(port: &Port, attention: Option<&Attention>) -> Result<Role, String> {
    let size = |at: usize, known: Option<usize>| {
        let stated = port
            .shape
            .get(at)
            .copied()
            .and_then(|n| usize::try_from(n).ok());
        stated.filter(|n| *n > 0).or(known)
    };
    let heads = size(1, attention.map(|attention| attention.n_key_heads));
    let size = size(3, attention.map(|attention| attention.head_size));
    match (heads, size) {
        (Some(heads), Some(size)) if port.shape.len() == 4 => Ok(Role::Past { heads, size }),
        _ => Err(format!(
            "input \"{}\" has shape {:?}, expected that of keys and values, [-1, heads, -1, size]",
            port.name, port.shape
        )),
    }
}
