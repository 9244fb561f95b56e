//! A hub, or a mirror of one, and its addresses.

use std::fmt;

use reqwest::Url;

use crate::{Hub, error::HubError};

/// A hub, or a mirror of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its protocol.
    pub hub: Hub,
    /// Its address, without a slash at the end.
    pub url: String,
}

impl fmt::Display for Endpoint {
    /// Without a name and password that the address may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Url::parse(&self.url) {
            Ok(url) => f.write_str(shown(&url).trim_end_matches('/')),
            Err(_) => f.write_str(&self.url),
        }
    }
}

impl Endpoint {
    /// An address of it: each part is encoded whole.
    pub(crate) fn address(
        &self,
        before: &[&str],
        model: &str,
        after: &[&str],
    ) -> Result<Url, HubError> {
        let none = || {
            HubError::Listing(format!(
                "{self} is no address of a hub: expected http:// or https://"
            ))
        };
        let mut url = Url::parse(&self.url).map_err(|_| none())?;
        url.path_segments_mut()
            .map_err(|()| none())?
            .pop_if_empty()
            .extend(before)
            .extend(model.split('/'))
            .extend(after);
        Ok(url)
    }
}

/// An address for messages: signed ones have secrets behind the question mark.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // An address that can hold none has none.
    _ = url.set_username("");
    _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_addresses_are_shown_without_their_signature() {
        let url = Url::parse("https://cdn.example/a/b?Signature=secret").unwrap();
        assert_eq!(shown(&url), "https://cdn.example/a/b");
    }
}
