//! `[hub]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, Secret};

/// More connections than any hub serves one client.
const MOST_CONNECTIONS: usize = 64;

/// The configuration of the hubs that models are fetched from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// The hubs that `embedgate pull` and `serve --pull` ask, the first first: `"modelscope"`, `"huggingface"`, or the
    /// address of a mirror (`"https://hf-mirror.com"`, `"modelscope=https://mirror.example"`). Empty: both at once, or
    /// those that `HF_ENDPOINT` and `MODELSCOPE_ENDPOINT` name.
    pub order: Vec<String>,
    /// A token of Hugging Face, for models that need one. Without it: the variable `HF_TOKEN`, or the file of Hugging
    /// Face's client.
    pub huggingface_token: Option<Secret>,
    /// A token of ModelScope. Without it: the variable `MODELSCOPE_API_TOKEN`.
    pub modelscope_token: Option<Secret>,
    /// Connections at a time.
    pub connections: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            huggingface_token: None,
            modelscope_token: None,
            connections: 4,
        }
    }
}

impl HubConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            let message = format!("must be 1 to {MOST_CONNECTIONS}, got {}", self.connections);
            problems.push(Problem::new("hub.connections", message));
        }
        for named in &self.order {
            if let Err(message) = HubAddress::read(named) {
                problems.push(Problem::new("hub.order", message));
            }
        }
    }
}

/// A hub as it is named: by its own name, or by an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress {
    /// The protocol that it speaks.
    pub hub: super::Hub,
    /// Its address, without a slash at the end; none for the usual one.
    pub url: Option<String>,
}

impl HubAddress {
    /// Reads `hf`, `huggingface`, `modelscope`, `ms`, the address of a mirror of Hugging Face, or `modelscope=ADDRESS`.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn read(named: &str) -> Result<Self, String> {
        use super::Hub;
        let hub_of = |word: &str| match word {
            "hf" | "huggingface" => Some(Hub::HuggingFace),
            "modelscope" | "ms" => Some(Hub::ModelScope),
            _ => None,
        };
        if let Some(hub) = hub_of(named) {
            return Ok(Self { hub, url: None });
        }
        let wrong = || {
            format!(
                r#""{named}" is no hub: expected huggingface, modelscope, or an address such as https://mirror.example"#
            )
        };
        let is_address = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let (hub, url) = match named.split_once('=') {
            _ if is_address(named) => (Hub::HuggingFace, named),
            Some((word, url)) if is_address(url) => (hub_of(word).ok_or_else(wrong)?, url),
            _ => return Err(wrong()),
        };
        Ok(Self {
            hub,
            url: Some(url.trim_end_matches('/').into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hub;

    #[test]
    fn hubs_are_named_by_a_word_or_an_address() {
        for (named, hub, url) in [
            ("hf", Hub::HuggingFace, None),
            ("modelscope", Hub::ModelScope, None),
            (
                "https://one.example/",
                Hub::HuggingFace,
                Some("https://one.example"),
            ),
            (
                "modelscope=http://two.example",
                Hub::ModelScope,
                Some("http://two.example"),
            ),
        ] {
            let url = url.map(str::to_owned);
            assert_eq!(HubAddress::read(named).unwrap(), HubAddress { hub, url });
        }
        for wrong in ["ftp://a", "other=https://a", "mirror.example", ""] {
            let error = HubAddress::read(wrong).unwrap_err();
            assert!(error.contains("is no hub"), "{wrong}: {error}");
        }
    }
}
