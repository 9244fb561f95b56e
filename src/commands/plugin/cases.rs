//! A file of cases: requests for a plugin, and what is expected of it.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc};

use anyhow::{Context, bail};
use embedgate_config::{Environment, PluginConfig, Timestamp};
use embedgate_plugin_host::harness::TestHead;
use embedgate_request::{EmbedRequest, Identity, Input, InputKind};
use serde::Deserialize;
use serde_json::json;

use super::super::Failure;

/// The content of a file of cases.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cases {
    /// As `[plugins.NAME]`, without its path.
    pub(super) plugin: toml::Table,
    /// Names under which the gateway would have `[auth.limits.NAME]`.
    pub(super) limits: Vec<String>,
    #[serde(rename = "case")]
    pub(super) cases: Vec<Case>,
}

/// One request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// The time for this case and those after it.
    pub(super) clock: Option<Timestamp>,
    pub(super) authenticate: Option<HeadCase>,
    /// For `plugin bench`: measures the same head again, too, as the gateway answers it from memory.
    #[serde(default, rename = "remembered")]
    pub(super) is_remembered: bool,
    pub(super) preprocess: Option<RequestCase>,
    /// Each of its members must be in the verdict; where it is missing, the verdict is printed.
    pub(super) expect: Option<toml::Table>,
}

/// The head of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HeadCase {
    method: String,
    path: String,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    client_ip: IpAddr,
}

impl Default for HeadCase {
    fn default() -> Self {
        Self {
            method: "POST".into(),
            path: "/v1/embeddings".into(),
            query: None,
            headers: BTreeMap::new(),
            client_ip: [127, 0, 0, 1].into(),
        }
    }
}

/// A request for embeddings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RequestCase {
    model: Option<String>,
    inputs: Vec<String>,
    tokens: Vec<Vec<u32>>,
    dimensions: Option<usize>,
    kind: Option<KindCase>,
    user: Option<String>,
    extra: BTreeMap<String, toml::Value>,
    pub(super) caller: Option<CallerCase>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindCase {
    Query,
    Document,
}

/// The caller of a request, as an authenticator would know it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallerCase {
    subject: String,
    tenant: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// Reads a file of cases.
pub(super) fn read(path: &Path) -> anyhow::Result<Cases> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    toml::from_str(&text).with_context(|| format!("{shown} is no file of cases"))
}

/// The configuration of a plugin under test, checked as the gateway's is; relative paths are relative to the file of cases.
pub(super) fn config(
    file: &Path,
    cases: Option<&Path>,
    table: &toml::Table,
    environment: &Environment,
) -> Result<PluginConfig, Failure> {
    let base = cases.and_then(Path::parent).unwrap_or(Path::new(""));
    let file = std::path::absolute(file).context("the current folder cannot be found")?;
    Ok(PluginConfig::parse(table, &file, base, environment)?)
}

impl HeadCase {
    /// The head that a plugin is asked about.
    pub(super) fn head(&self) -> TestHead {
        let lower = |(name, value): (&String, &String)| (name.to_ascii_lowercase(), value.clone());
        TestHead {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.iter().map(lower).collect(),
            client_ip: Some(self.client_ip),
        }
    }
}

impl RequestCase {
    /// The request that a plugin is shown.
    pub(super) fn request(&self) -> anyhow::Result<EmbedRequest> {
        let texts = self.inputs.iter().cloned().map(Input::Text);
        let tokens = self.tokens.iter().cloned().map(Input::Tokens);
        let inputs: Vec<_> = texts.chain(tokens).collect();
        if inputs.is_empty() || !(self.inputs.is_empty() || self.tokens.is_empty()) {
            bail!("preprocess needs either inputs (texts) or tokens (lists of ids)");
        }
        let extra = self.extra.iter();
        Ok(EmbedRequest {
            model: self.model.clone(),
            kind: match self.kind {
                None => InputKind::Unspecified,
                Some(KindCase::Query) => InputKind::Query,
                Some(KindCase::Document) => InputKind::Document,
            },
            user: self.user.clone(),
            extra: extra
                .map(|(name, value)| (name.clone(), json!(value).to_string()))
                .collect(),
            dimensions: self.dimensions,
            ..EmbedRequest::new(inputs)
        })
    }
}

impl CallerCase {
    /// The identity of the caller.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            subject: Arc::from(self.subject.as_str()),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
            attributes: self.attributes.clone().into_iter().collect(),
            ..Identity::default()
        }
    }
}
