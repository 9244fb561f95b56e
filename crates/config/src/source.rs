//! The names of models: `BAAI/bge-m3`, `modelscope:BAAI/bge-m3@master`, `hf:BAAI/bge-m3@5617a9f`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A hub, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hub {
    /// Hugging Face, and mirrors of it.
    HuggingFace,
    /// ModelScope.
    ModelScope,
}

impl Hub {
    /// The revision that is taken where none is named.
    #[must_use]
    pub fn default_revision(self) -> &'static str {
        match self {
            Self::HuggingFace => "main",
            Self::ModelScope => "master",
        }
    }
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "huggingface",
            Self::ModelScope => "modelscope",
        })
    }
}

/// A model on a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Source {
    /// The hub; none where any will do.
    pub hub: Option<Hub>,
    /// `OWNER/NAME`.
    pub model: String,
    /// A branch, a tag or a commit; none for the hub's usual branch.
    pub revision: Option<String>,
}

impl Source {
    /// The last part of the model's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.model.rsplit('/').next().unwrap_or(&self.model)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hub) = self.hub {
            write!(f, "{hub}:")?;
        }
        f.write_str(&self.model)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hub, rest) = match text.split_once(':') {
            None => (None, text),
            Some(("hf" | "huggingface", rest)) => (Some(Hub::HuggingFace), rest),
            Some(("modelscope" | "ms", rest)) => (Some(Hub::ModelScope), rest),
            Some((other, _)) => {
                return Err(format!(
                    r#""{other}:" is no hub: expected "hf:" or "modelscope:", as in "modelscope:BAAI/bge-m3""#
                ));
            }
        };
        let (model, revision) = match rest.split_once('@') {
            None => (rest, None),
            Some((model, revision)) => (model, Some(revision)),
        };
        let is_part = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && part.chars().all(fits) && part.chars().any(|c| c != '.')
        };
        let parts: Vec<&str> = model.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_part(part)) {
            return Err(format!(
                r#""{model}" is no model: expected OWNER/NAME, as in "BAAI/bge-m3""#
            ));
        }
        if revision
            .is_some_and(|revision| revision.is_empty() || revision.chars().any(char::is_control))
        {
            return Err(format!(
                r#""{text}" names no revision after "@": expected a branch, a tag or a commit"#
            ));
        }
        Ok(Self {
            hub,
            model: model.into(),
            revision: revision.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, hub, model, revision) in [
            ("BAAI/bge-m3", None, "BAAI/bge-m3", None),
            (
                "hf:BAAI/bge-m3@5617a9f",
                Some(Hub::HuggingFace),
                "BAAI/bge-m3",
                Some("5617a9f"),
            ),
            (
                "modelscope:BAAI/bge-m3@v1.0",
                Some(Hub::ModelScope),
                "BAAI/bge-m3",
                Some("v1.0"),
            ),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(
                (source.hub, &*source.model, source.revision.as_deref()),
                (hub, model, revision)
            );
            assert_eq!(source.name(), "bge-m3");
        }
        let written = "ms:BAAI/bge-m3@master"
            .parse::<Source>()
            .unwrap()
            .to_string();
        assert_eq!(written, "modelscope:BAAI/bge-m3@master");
    }

    #[test]
    fn what_is_no_name_is_refused_with_an_example() {
        for (text, expected) in [
            ("bge-m3", "OWNER/NAME"),
            ("a/b/c", "OWNER/NAME"),
            ("../b", "OWNER/NAME"),
            ("a b/c", "OWNER/NAME"),
            ("ftp:a/b", "is no hub"),
            ("a/b@", "no revision"),
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
