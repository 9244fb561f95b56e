//! The module `Dense`.

use std::path::Path;

use serde::Deserialize;

use super::{invalid, missing};
use crate::{
    encoder::{Activation, Linear},
    folder::{FolderError, read_json},
    vector_module::DenseModule,
};

/// The vector that the module reads and writes, in sentence-transformers.
const SENTENCE: &str = "sentence_embedding";

#[derive(Deserialize)]
struct DenseFile {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    /// A class of torch.
    activation_function: Option<String>,
    #[serde(flatten)]
    names: Names,
    #[serde(default)]
    use_residual: bool,
}

/// The vectors that a module reads and writes, where it says so.
#[derive(Default, Deserialize)]
pub(super) struct Names {
    module_input_name: Option<String>,
    module_output_name: Option<String>,
}

impl Names {
    /// Refuses a module that works on other vectors than the text's.
    pub(super) fn check(&self) -> Result<(), String> {
        for (field, name) in [
            ("module_input_name", &self.module_input_name),
            ("module_output_name", &self.module_output_name),
        ] {
            if let Some(other) = name.as_deref().filter(|name| *name != SENTENCE) {
                return Err(format!(
                    "{field} is \"{other}\", supported is \"{SENTENCE}\""
                ));
            }
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

/// Reads the module of a folder; its weights are not opened.
///
/// Source: sentence-transformers 6.2, `base/modules/dense.py`.
pub(super) fn read(folder: &Path) -> Result<DenseModule, FolderError> {
    let path = folder.join("config.json");
    let file: DenseFile = read_json(&path)?.ok_or_else(|| missing(&path))?;
    file.names
        .check()
        .map_err(|problem| invalid(&path, problem))?;
    let (inner, outer) = (file.in_features, file.out_features);
    if inner == 0 || outer == 0 {
        let problem =
            format!("in_features is {inner} and out_features {outer}, expected at least 1");
        return Err(invalid(&path, problem));
    }
    let named = file.activation_function.as_deref();
    // The reference's own default.
    let activation =
        activation(named.unwrap_or("Tanh")).map_err(|problem| invalid(&path, problem))?;
    let has_other_width = file.use_residual && inner != outer;
    Ok(DenseModule {
        folder: folder.to_owned(),
        linear: Linear::of("linear", [outer, inner], file.bias),
        activation,
        has_residual: file.use_residual,
        residual: has_other_width.then(|| Linear::of("residual", [outer, inner], false)),
    })
}

/// The activation that a class of torch is; none for the identity.
fn activation(class: &str) -> Result<Option<Activation>, String> {
    let name = class.rsplit('.').next().unwrap_or_default();
    // The reference does not run a class of its own code either.
    let is_own = class.starts_with("torch.") || class == name;
    match name {
        _ if !is_own => Err(format!(
            "activation_function is \"{class}\", supported are classes of torch.nn"
        )),
        "Identity" => Ok(None),
        "Tanh" => Ok(Some(Activation::Tanh)),
        "ReLU" => Ok(Some(Activation::Relu)),
        "GELU" => Ok(Some(Activation::Gelu)),
        "SiLU" => Ok(Some(Activation::Silu)),
        _ => Err(format!(
            "activation_function is \"{class}\", supported are Identity, Tanh, ReLU, GELU and SiLU of torch.nn"
        )),
    }
}
