//! The fields of a `config.json`, read by name, with errors that name the field. A field of null counts as absent.

use serde_json::{Map, Value};

use super::{Activation, narrowed};

/// The fields of one file.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

/// Sizes beyond this are a broken file, not a model: products of two of them still fit.
const MAX_SIZE: usize = 1 << 24;
/// More layers are a broken file, too: the deepest models have a hundred.
const MAX_LAYERS: usize = 1024;

impl<'a> Fields<'a> {
    /// The value of a field; none where it is absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A number of things, at least 1.
    pub(super) fn size(&self, name: &str) -> Result<usize, String> {
        let found = self.size_if_any(name)?;
        found.ok_or_else(|| format!("{name} is missing"))
    }

    /// A number of things; `usual` where it is absent.
    pub(super) fn size_or(&self, name: &str, usual: usize) -> Result<usize, String> {
        Ok(self.size_if_any(name)?.unwrap_or(usual))
    }

    /// A number of things, at least 1; none where it is absent.
    pub(super) fn size_if_any(&self, name: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
        match n {
            Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(Some(n)),
            _ => Err(format!("{name} is {value}, expected 1 to {MAX_SIZE}")),
        }
    }

    /// The number of layers.
    pub(super) fn layers(&self, name: &str) -> Result<usize, String> {
        match self.size(name)? {
            n if n <= MAX_LAYERS => Ok(n),
            n => Err(format!("{name} is {n}, expected 1 to {MAX_LAYERS}")),
        }
    }

    /// The kinds of all layers by `layer_types`: true where a layer has a window; none where the field is absent.
    pub(super) fn windows_by_type(&self, n_layers: usize) -> Result<Option<Vec<bool>>, String> {
        let Some(types) = self.list("layer_types")? else {
            return Ok(None);
        };
        if types.len() != n_layers {
            let n = types.len();
            return Err(format!(
                "layer_types has {n} entries, expected {n_layers}, one a layer"
            ));
        }
        let has_window = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(format!(
                "layer_types has {kind}, supported are \"full_attention\" and \"sliding_attention\""
            )),
        };
        types
            .iter()
            .map(has_window)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Returns true when the field is there, even if it is null.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The id of a token; `usual` where it is absent.
    pub(super) fn token_or(&self, name: &str, usual: u32) -> Result<u32, String> {
        let Some(value) = self.get(name) else {
            return Ok(usual);
        };
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.filter(|id| *id as usize <= MAX_SIZE)
            .ok_or_else(|| format!("{name} is {value}, expected the id of a token"))
    }

    /// A number; `usual` where it is absent.
    pub(super) fn number_or(&self, name: &str, usual: f64) -> Result<f64, String> {
        let Some(value) = self.get(name) else {
            return Ok(usual);
        };
        value
            .as_f64()
            .ok_or_else(|| format!("{name} is {value}, expected a number"))
    }

    /// A number above 0; `usual` where it is absent.
    pub(super) fn positive_or(&self, name: &str, usual: f64) -> Result<f64, String> {
        match self.number_or(name, usual)? {
            x if x > 0.0 && x.is_finite() => Ok(x),
            x => Err(format!("{name} is {x}, expected a number above 0")),
        }
    }

    /// A small positive number that is added to a variance; `usual` where it is absent.
    pub(super) fn eps_or(&self, name: &str, usual: f64) -> Result<f32, String> {
        let eps = narrowed(self.number_or(name, usual)?);
        if eps > 0.0 && eps < 1.0 {
            return Ok(eps);
        }
        Err(format!("{name} is {eps}, expected a small positive number"))
    }

    /// A flag; `usual` where it is absent.
    pub(super) fn flag_or(&self, name: &str, usual: bool) -> Result<bool, String> {
        let Some(value) = self.get(name) else {
            return Ok(usual);
        };
        value
            .as_bool()
            .ok_or_else(|| format!("{name} is {value}, expected true or false"))
    }

    /// A word; `usual` where it is absent.
    pub(super) fn word_or(&self, name: &str, usual: &'a str) -> Result<&'a str, String> {
        let Some(value) = self.get(name) else {
            return Ok(usual);
        };
        value
            .as_str()
            .ok_or_else(|| format!("{name} is {value}, expected a string"))
    }

    /// A list; none where it is absent.
    pub(super) fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, String> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let list = value
            .as_array()
            .ok_or_else(|| format!("{name} is {value}, expected a list"))?;
        Ok(Some(list))
    }

    /// Refuses a word that is not one of `supported`; an absent one is supported.
    pub(super) fn only_word(&self, name: &str, supported: &[&str]) -> Result<(), String> {
        let word = self.word_or(name, supported[0])?;
        match supported.contains(&word) {
            true => Ok(()),
            false => Err(format!(
                "{name} is \"{word}\", supported is \"{}\"",
                supported.join("\" or \"")
            )),
        }
    }

    /// Refuses a flag that is not `supported`; an absent one is supported.
    pub(super) fn only_flag(&self, name: &str, supported: bool) -> Result<(), String> {
        match self.flag_or(name, supported)? == supported {
            true => Ok(()),
            false => Err(format!(
                "{name} is {}, supported is {supported}",
                !supported
            )),
        }
    }

    /// Refuses a field that says anything.
    pub(super) fn none_of(&self, names: &[&str]) -> Result<(), String> {
        let is_empty = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            _ => false,
        };
        let said = |name: &&&str| self.0.get(**name).is_some_and(|value| !is_empty(value));
        match names.iter().find(said) {
            None => Ok(()),
            Some(name) => Err(format!("{name} is set, which is not supported")),
        }
    }

    /// An activation; the one called `usual` where it is absent.
    pub(super) fn activation_or(&self, name: &str, usual: &'a str) -> Result<Activation, String> {
        let word = self.word_or(name, usual)?;
        activation(word).ok_or_else(|| {
            format!("{name} is \"{word}\", supported are gelu, gelu_new, gelu_pytorch_tanh, relu, silu and tanh")
        })
    }
}

/// The activation of a name in transformers.
fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}
