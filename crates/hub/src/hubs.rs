//! The hubs that have a model: their listings of it, and the places of its files.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};

use crate::{
    Hub, Source,
    client::Client,
    endpoint::Endpoint,
    error::HubError,
    fetch::Origin,
    hash::Check,
    huggingface,
    listing::{ListedFile, Listing},
    modelscope,
};

/// Other hubs that have the model too are waited for so long, once one has it.
const GRACE: Duration = Duration::from_secs(2);

/// The listings of all hubs that have the model and answer in time: in their order where they have one, else the first to
/// answer first.
pub(crate) async fn listings(client: &Client, source: &Source) -> Result<Vec<Listing>, HubError> {
    let endpoints = client.settings.endpoints.iter();
    let asked: Vec<&Endpoint> = endpoints
        .filter(|endpoint| source.hub.is_none_or(|hub| hub == endpoint.hub))
        .collect();
    let mut answers: FuturesUnordered<_> = asked
        .into_iter()
        .map(|endpoint| list(client, endpoint, source))
        .collect();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(listing) => {
                found.push(listing);
                break;
            }
            Err(error) => errors.push(error),
        }
    }
    let others = async {
        while let Some(answer) = answers.next().await {
            found.extend(answer.ok());
        }
    };
    // Those that come too late are not needed.
    drop(tokio::time::timeout(GRACE, others).await);
    if client.settings.is_ordered {
        let place = |listing: &Listing| {
            let mut endpoints = client.settings.endpoints.iter();
            endpoints.position(|endpoint| *endpoint == listing.endpoint)
        };
        found.sort_by_key(place);
    }
    match (found.is_empty(), errors.len()) {
        (false, _) => Ok(found),
        (true, 1) => Err(errors.remove(0)),
        (true, 0) => Err(HubError::Listing(format!(
            "no hub is configured for {source}"
        ))),
        (true, _) => Err(HubError::NoHub(errors)),
    }
}

async fn list(client: &Client, endpoint: &Endpoint, source: &Source) -> Result<Listing, HubError> {
    let usual = endpoint.hub.default_revision();
    let revision = source.revision.as_deref().unwrap_or(usual);
    let listed = match endpoint.hub {
        Hub::HuggingFace => huggingface::list(client, endpoint, &source.model, revision).await,
        Hub::ModelScope => modelscope::list(client, endpoint, &source.model, revision).await,
    };
    listed.map_err(|error| error.of(&source.model, revision))
}

/// The places that have the same file.
pub(crate) fn origins(listings: &[Listing], file: &ListedFile) -> Result<Vec<Origin>, HubError> {
    let has_it = |listing: &&Listing| {
        let mut entries = listing.entries.iter();
        entries.any(|entry| {
            let agree = match (&entry.check, &file.check) {
                (Check::Sha256(a), Check::Sha256(b)) | (Check::GitSha1(a), Check::GitSha1(b)) => {
                    a == b
                }
                // Hashes of two kinds: what comes is held to the first listing's.
                _ => true,
            };
            entry.path == file.path && entry.size == file.size && agree
        })
    };
    let origin = |listing: &Listing| {
        let url = match listing.endpoint.hub {
            Hub::HuggingFace => huggingface::file(listing, &file.path),
            Hub::ModelScope => modelscope::file(listing, &file.path),
        };
        url.map(|url| Origin {
            endpoint: listing.endpoint.clone(),
            url,
        })
    };
    listings.iter().filter(has_it).map(origin).collect()
}
