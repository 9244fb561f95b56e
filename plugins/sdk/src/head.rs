//! Look-ups in what an authenticator sees.

use crate::{Header, RequestHead};

impl RequestHead {
    /// Returns the first header of a name, in lower case. Only headers that the configuration names are here.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }

    /// Returns the first parameter of a name in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        first(&self.query, name)
    }

    /// Returns the token in `authorization: Bearer TOKEN`; the scheme's case does not matter.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }
}

fn first<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|header| header.name == name)
        .map(|header| header.value.as_str())
}

#[cfg(test)]
mod tests {
    use crate::test;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(
                test::head().with_header("authorization", value).bearer(),
                Some("abc"),
                "{value:?}"
            );
        }
    }

    #[test]
    fn other_schemes_and_empty_tokens_are_no_bearer_token() {
        for value in ["Basic abc", "Bearer", "Bearer ", "abc", "Bearerabc"] {
            assert_eq!(
                test::head().with_header("authorization", value).bearer(),
                None,
                "{value:?}"
            );
        }
        assert_eq!(test::head().bearer(), None);
    }
}
