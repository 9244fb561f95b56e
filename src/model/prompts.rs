//! Texts that are put in front of inputs.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_request::{Error, InputKind};

/// Names under which models keep the prompt for documents, the usual one first.
///
/// Source: sentence-transformers 6.2, `SentenceTransformer.encode_query` and `encode_document`.
const DOCUMENT: [&str; 3] = ["document", "passage", "corpus"];
const QUERY: &str = "query";

/// A model's prompts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    /// For inputs of which nothing is said; may be empty.
    pub default: Arc<str>,
    /// By name, of the folder and of the configuration.
    pub by_name: BTreeMap<String, Arc<str>>,
    /// True when the prompt's own tokens are pooled with the text's: then it can be put in front.
    pub is_pooled: bool,
}

impl Prompts {
    /// The prompt of a name; else the one for this kind of input, where the model has one; else the default.
    ///
    /// # Errors
    /// `InvalidRequest` that names the prompts there are.
    pub(crate) fn choose(&self, name: Option<&str>, kind: InputKind) -> Result<&Arc<str>, Error> {
        // Folders have empty ones that nobody wrote: another name's text goes before those.
        let of_kind = |names: &[&str]| {
            let known = || names.iter().filter_map(|name| self.by_name.get(*name));
            known().find(|text| !text.is_empty()).or(known().next())
        };
        let chosen = match (name, kind) {
            (Some(name), _) => Some(self.by_name.get(name).ok_or_else(|| self.unknown(name))?),
            (None, InputKind::Query) => of_kind(&[QUERY]),
            (None, InputKind::Document) => of_kind(&DOCUMENT),
            (None, InputKind::Unspecified) => None,
        };
        match chosen {
            Some(prompt) if prompt.is_empty() || self.is_pooled => Ok(prompt),
            Some(_) if name.is_some() => {
                let message =
                    "this model pools without its prompt, which is not supported: name no prompt";
                Err(Error::invalid("prompt_name", message))
            }
            _ => Ok(&self.default),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let known = match names.as_slice() {
            [] => "the model has none".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        let shown: String = name.chars().take(40).collect();
        Error::invalid(
            "prompt_name",
            format!("there is no prompt {shown:?}; {known}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_the_kind_and_the_kind_before_the_default() {
        let of = |pairs: &[(&str, &str)]| Prompts {
            default: "default: ".into(),
            by_name: pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).into()))
                .collect(),
            is_pooled: true,
        };
        let prompts = of(&[("query", "q: "), ("passage", "p: "), ("other", "o: ")]);
        let choose = |name, kind| &**prompts.choose(name, kind).unwrap();
        assert_eq!(choose(Some("other"), InputKind::Query), "o: ");
        assert_eq!(choose(None, InputKind::Query), "q: ");
        assert_eq!(choose(None, InputKind::Document), "p: ");
        assert_eq!(choose(None, InputKind::Unspecified), "default: ");
        let empty = of(&[("document", ""), ("passage", "p: ")]);
        assert_eq!(&**empty.choose(None, InputKind::Document).unwrap(), "p: ");
        let without = of(&[]);
        assert_eq!(
            &**without.choose(None, InputKind::Query).unwrap(),
            "default: "
        );
        let error = prompts.choose(Some("qery"), InputKind::Query).unwrap_err();
        assert!(error.message.contains("other, passage, query"), "{error}");
    }
}
