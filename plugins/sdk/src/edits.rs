//! Reading a request and building what changes in it.

use crate::{Edits, EmbedRequest, Header, InputEdit, InputKind, Inputs, Outcome, Replacement};

impl EmbedRequest {
    /// Returns the texts; there are none where the client sent token ids.
    pub fn texts(&self) -> &[String] {
        match &self.inputs {
            Inputs::Texts(texts) => texts,
            Inputs::Tokens(_) => &[],
        }
    }

    /// Returns a member of the body that the gateway does not know, as JSON text.
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.extra
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Replaces the texts for which `change` returns another one; the rest are not copied back.
    pub fn replace_texts(&self, mut change: impl FnMut(&str) -> Option<String>) -> Outcome {
        let changed = self.texts().iter().zip(0..).filter_map(|(text, index)| {
            let text = change(text)?;
            Some(Replacement { index, text })
        });
        Edits::some(changed.collect()).into()
    }
}

impl Edits {
    /// Changes nothing yet.
    pub fn none() -> Self {
        Self {
            model: None,
            inputs: InputEdit::Keep,
            dimensions: None,
            kind: None,
            response_headers: Vec::new(),
        }
    }

    /// Puts a prefix in front of every text. The gateway does it: no text is copied back.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            inputs: InputEdit::Prefix(prefix.into()),
            ..Self::none()
        }
    }

    /// Replaces just these texts, an index at most once.
    pub fn some(replacements: Vec<Replacement>) -> Self {
        if replacements.is_empty() {
            return Self::none();
        }
        Self {
            inputs: InputEdit::Some(replacements),
            ..Self::none()
        }
    }

    /// Replaces all texts, in order, with as many as came.
    pub fn all(texts: Vec<String>) -> Self {
        Self {
            inputs: InputEdit::All(texts),
            ..Self::none()
        }
    }

    /// Sends the request to another model.
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the number of dimensions.
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Sets what the inputs are.
    pub fn with_kind(mut self, kind: InputKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Adds a header to the response; names begin with `x-` but not with `x-embedgate-`.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.response_headers.push(Header {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }
}

/// Edits that change nothing are [`Outcome::Unchanged`], which costs the gateway nothing.
impl From<Edits> for Outcome {
    fn from(edits: Edits) -> Self {
        if edits == Edits::none() {
            Self::Unchanged
        } else {
            Self::Edited(edits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test;

    #[test]
    fn only_changed_texts_are_replaced() {
        let request = test::texts(&["a", "b", "c"]);
        let outcome = request.replace_texts(|text| (text == "b").then(|| "B".to_owned()));
        let expected = Edits::some(vec![Replacement {
            index: 1,
            text: "B".to_owned(),
        }]);
        assert_eq!(outcome, Outcome::Edited(expected));
    }

    #[test]
    fn nothing_changed_is_unchanged() {
        assert_eq!(
            test::texts(&["a"]).replace_texts(|_| None),
            Outcome::Unchanged
        );
        assert_eq!(
            test::tokens(&[&[1, 2]]).replace_texts(|_| Some(String::new())),
            Outcome::Unchanged
        );
        assert_eq!(Outcome::from(Edits::none()), Outcome::Unchanged);
        assert_ne!(
            Outcome::from(Edits::none().with_dimensions(2)),
            Outcome::Unchanged
        );
    }
}
