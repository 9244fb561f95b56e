//! Answers in JSON, page by page.

use reqwest::{
    Url,
    header::{HeaderMap, LINK},
};
use serde::de::DeserializeOwned;

use super::{Client, read};
use crate::{
    endpoint::{Endpoint, shown},
    error::HubError,
    tries::{Failure, Tries},
};

/// Tries for a listing: another hub may have answered long before.
const LISTING_TRIES: usize = 4;
/// Bytes of a listing that are read.
const MOST_LISTING: usize = 64 << 20;

impl Client {
    /// Reads JSON, with as many tries as it takes; and the address of the next page, where there is one.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        url: &Url,
    ) -> Result<(T, Option<Url>), HubError> {
        let mut tries = Tries::new(LISTING_TRIES, self.settings.first_pause);
        loop {
            match self.one_json(endpoint, url).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.failed(failure).await?,
            }
        }
    }

    async fn one_json<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        url: &Url,
    ) -> Result<(T, Option<Url>), Failure> {
        let response = self.open(endpoint, url, None).await?;
        let next = next_page(response.headers(), url);
        let broken = |problem: String| HubError::Network {
            what: shown(url),
            problem,
        };
        let body = read(response, MOST_LISTING).await.map_err(broken)?;
        let parsed = serde_json::from_slice(&body).map_err(|error| {
            let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
            broken(match start {
                Some(b'<') => "it answers with a page where a list was asked for: is there a login page or a proxy between?".into(),
                _ => format!("it answers with what is no list of files: {error}"),
            })
        })?;
        Ok((parsed, next))
    }
}

/// The next page of a listing.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links
        .split(',')
        .find(|link| link.contains(r#"rel="next""#))?;
    let address = link.split_once('<')?.1.split_once('>')?.0;
    url.join(address).ok()
}
