//! The protocol of Hugging Face and its mirrors.
//!
//! Source: huggingface_hub 2.4.0, `hf_api.py` and `file_download.py`.

use reqwest::Url;
use serde::Deserialize;

use crate::{
    client::Client,
    endpoint::Endpoint,
    error::HubError,
    hash::{Check, hash},
    listing::{ListedFile, Listing, checked},
};

#[derive(Deserialize)]
struct Revision {
    sha: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Lists a revision: its commit first, then the commit's files, page by page.
pub(crate) async fn list(
    client: &Client,
    endpoint: &Endpoint,
    model: &str,
    revision: &str,
) -> Result<Listing, HubError> {
    let at = endpoint.address(&["api", "models"], model, &["revision", revision])?;
    let (found, _): (Revision, _) = client.json(endpoint, &at).await?;
    let commit = found.sha.ok_or_else(|| {
        HubError::Listing(format!(
            "{endpoint} names no commit of {model}: it does not look like a Hugging Face endpoint"
        ))
    })?;
    let mut next = endpoint.address(&["api", "models"], model, &["tree", &commit])?;
    next.set_query(Some("recursive=True&expand=False"));
    let mut entries = Vec::new();
    loop {
        let (rows, more): (Vec<Row>, _) = client.json(endpoint, &next).await?;
        for row in rows.into_iter().filter(|row| row.kind == "file") {
            entries.push(entry(row)?);
        }
        match more {
            Some(more) => next = more,
            None => break,
        }
    }
    Ok(Listing {
        endpoint: endpoint.clone(),
        model: model.into(),
        revision: revision.into(),
        commit,
        entries: checked(entries)?,
    })
}

fn entry(row: Row) -> Result<ListedFile, HubError> {
    let (size, check) = match row.lfs {
        Some(lfs) => (lfs.size, Check::Sha256(hash(&lfs.oid, 64, &row.path)?)),
        None => (row.size, Check::GitSha1(hash(&row.oid, 40, &row.path)?)),
    };
    Ok(ListedFile {
        path: row.path,
        size,
        check,
    })
}

/// The address of a file's bytes.
pub(crate) fn file(listing: &Listing, path: &str) -> Result<Url, HubError> {
    let parts: Vec<&str> = ["resolve", &listing.commit]
        .into_iter()
        .chain(path.split('/'))
        .collect();
    listing.endpoint.address(&[], &listing.model, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedgate_config::Hub;

    #[test]
    fn addresses_are_encoded_part_by_part() {
        let listing = Listing {
            endpoint: Endpoint {
                hub: Hub::HuggingFace,
                url: "http://127.0.0.1:1/below".into(),
            },
            model: "a/b".into(),
            revision: "main".into(),
            commit: "c".into(),
            entries: Vec::new(),
        };
        let url = file(&listing, "1_Pooling/ein Name+é#.json").unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/below/a/b/resolve/c/1_Pooling/ein%20Name+%C3%A9%23.json"
        );
        let pr = listing
            .endpoint
            .address(&[], "a/b", &["revision", "refs/pr/1"])
            .unwrap();
        assert!(pr.as_str().ends_with("/revision/refs%2Fpr%2F1"), "{pr}");
    }
}
