//! Reads the claims of a token that was verified.

use std::time::Duration;

use embedgate_plugin::Rejection;
use serde_json::Value;

/// All claims.
#[derive(Debug)]
pub(crate) struct Claims(Value);

impl Claims {
    /// Reads what the host returns for a token that holds.
    ///
    /// # Errors
    /// It is no JSON: the host is broken.
    pub(crate) fn parse(json: &str) -> Result<Self, Rejection> {
        let claims = serde_json::from_str(json);
        claims
            .map(Self)
            .map_err(|error| Rejection::unavailable(format!("the host's claims: {error}")))
    }

    /// Returns a claim that is a text, or a number as one.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        match self.find(path)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Returns the words of a claim: a text with spaces between them, or a list.
    pub(crate) fn words(&self, path: &str) -> Option<Vec<String>> {
        match self.find(path)? {
            Value::String(text) => Some(text.split_ascii_whitespace().map(str::to_owned).collect()),
            Value::Array(list) => Some(
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Returns when the token expires, since 1970; without `exp` it did.
    pub(crate) fn expires(&self) -> Duration {
        let seconds = self.0.get("exp").and_then(Value::as_f64).unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Finds a claim by its whole name first, because names are URLs at times, and then by the path to it.
    fn find(&self, path: &str) -> Option<&Value> {
        if let Some(claim) = self.0.get(path) {
            return Some(claim);
        }
        path.split('.')
            .try_fold(&self.0, |value, name| value.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let json = r#"{"sub": 7, "a": {"b": ["x", 1, "y"]}, "https://e.com/t": "t", "scope": " p  q ", "exp": 1.5}"#;
        Claims::parse(json).expect("claims")
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        assert_eq!(claims().text("sub").as_deref(), Some("7"));
        assert_eq!(claims().text("https://e.com/t").as_deref(), Some("t"));
        assert_eq!(
            claims().words("a.b"),
            Some(vec!["x".to_owned(), "y".to_owned()])
        );
        assert_eq!(claims().words("a.c"), None);
        assert_eq!(claims().text("a"), None);
    }

    #[test]
    fn words_stand_in_a_text_or_a_list() {
        assert_eq!(
            claims().words("scope"),
            Some(vec!["p".to_owned(), "q".to_owned()])
        );
        assert_eq!(claims().words("sub"), None);
    }

    #[test]
    fn a_time_without_sense_has_passed() {
        assert_eq!(claims().expires(), Duration::from_millis(1500));
        for json in [
            "{}",
            r#"{"exp": -1}"#,
            r#"{"exp": 1e300}"#,
            r#"{"exp": "1"}"#,
        ] {
            assert_eq!(
                Claims::parse(json).expect("claims").expires(),
                Duration::ZERO,
                "{json}"
            );
        }
    }
}
