//! The protocol of ModelScope.
//!
//! Source: modelscope 1.40.2, `hub/api.py` and `hub/file_download.py`.

use reqwest::Url;
use serde::Deserialize;

use crate::{
    client::Client,
    endpoint::Endpoint,
    error::HubError,
    hash::{Check, hash},
    listing::{ListedFile, Listing, checked},
};

/// A listing ends here without a word.
const MOST_ROWS: usize = 3000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    data: Option<Data>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    files: Option<Vec<Row>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    path: String,
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    sha256: Option<String>,
}

/// A revision of a model that is listed.
struct Asked<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    model: &'a str,
    revision: &'a str,
}

/// The extent of a listing.
#[derive(Clone, Copy)]
enum Depth {
    /// A folder and all below it.
    All,
    /// A folder alone.
    One,
}

/// Lists a revision, folder by folder where it is too long for one answer.
pub(crate) async fn list(
    client: &Client,
    endpoint: &Endpoint,
    model: &str,
    revision: &str,
) -> Result<Listing, HubError> {
    let asked = Asked {
        client,
        endpoint,
        model,
        revision,
    };
    let mut entries = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let rows = asked.rows(&folder, Depth::All).await?;
        let rows = if rows.len() < MOST_ROWS {
            rows
        } else {
            let within = asked.rows(&folder, Depth::One).await?;
            if within.len() >= MOST_ROWS {
                return Err(HubError::Listing(format!(
                    "{endpoint} lists {MOST_ROWS} files in one folder of {model}, and no more: which are missing is not known"
                )));
            }
            let below = within.iter().filter(|row| row.kind == "tree");
            folders.extend(below.map(|row| row.path.clone()));
            within
        };
        for row in rows.into_iter().filter(|row| row.kind == "blob") {
            entries.push(entry(row)?);
        }
    }
    Ok(Listing {
        endpoint: endpoint.clone(),
        model: model.into(),
        revision: revision.into(),
        // Files are asked for by the revision: their addresses have no commit.
        commit: revision.into(),
        entries: checked(entries)?,
    })
}

impl Asked<'_> {
    /// Asks for the rows of a folder.
    async fn rows(&self, folder: &str, depth: Depth) -> Result<Vec<Row>, HubError> {
        let Self {
            client,
            endpoint,
            model,
            revision,
        } = self;
        let mut url = endpoint.address(&["api", "v1", "models"], model, &["repo", "files"])?;
        let recursive = match depth {
            Depth::All => "True",
            Depth::One => "False",
        };
        url.query_pairs_mut()
            .append_pair("Revision", revision)
            .append_pair("Recursive", recursive);
        if !folder.is_empty() {
            url.query_pairs_mut().append_pair("Root", folder);
        }
        let (answer, _): (Answer, _) = client.json(endpoint, &url).await?;
        let files = answer.data.and_then(|data| data.files);
        files.ok_or_else(|| {
            let said = answer.message.unwrap_or_default();
            HubError::Listing(format!(
                "{endpoint} lists no files of {model} at {revision}: {said}"
            ))
        })
    }
}

fn entry(row: Row) -> Result<ListedFile, HubError> {
    let sha256 = row.sha256.unwrap_or_default();
    Ok(ListedFile {
        check: Check::Sha256(hash(&sha256, 64, &row.path)?),
        size: row.size,
        path: row.path,
    })
}

/// The address of a file's bytes.
pub(crate) fn file(listing: &Listing, path: &str) -> Result<Url, HubError> {
    let mut url = listing
        .endpoint
        .address(&["api", "v1", "models"], &listing.model, &["repo"])?;
    url.query_pairs_mut()
        .append_pair("Revision", &listing.revision)
        .append_pair("FilePath", path);
    Ok(url)
}
