//! TLS: the server's certificate, which is read again when its files change, and the names of clients' certificates.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use embedgate_config::TlsConfig;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use crate::reload::changed;

/// The files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The server's side of TLS.
pub(crate) struct Tls {
    config: TlsConfig,
    acceptors: ArcSwap<Acceptors>,
}

/// The same certificate with and without HTTP/2.
struct Acceptors {
    all: Arc<ServerConfig>,
    /// For connections that are for one answer.
    http1: Arc<ServerConfig>,
}

/// Length and time of each file.
type Stamps = Vec<Option<(u64, SystemTime)>>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or the key is not that of the certificate.
    pub(crate) fn load(config: &TlsConfig) -> anyhow::Result<Self> {
        Ok(Self {
            config: config.clone(),
            acceptors: ArcSwap::new(Arc::new(Acceptors::load(config)?)),
        })
    }

    /// Takes new connections by the certificate of this moment.
    pub(super) fn acceptor(&self, is_reserve: bool) -> TlsAcceptor {
        let acceptors = self.acceptors.load();
        let config = if is_reserve {
            &acceptors.http1
        } else {
            &acceptors.all
        };
        TlsAcceptor::from(Arc::clone(config))
    }

    /// Reads the files again when they change; a pair that does not fit leaves the one before. Never ends.
    pub(crate) async fn watch(&self) {
        let (mut served, mut said) = (self.stamps(), None);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.stamps();
            if now == served {
                continue;
            }
            let config = self.config.clone();
            let loading = tokio::task::spawn_blocking(move || Acceptors::load(&config));
            match loading.await.map_err(anyhow::Error::new).flatten() {
                Ok(acceptors) => {
                    self.acceptors.store(Arc::new(acceptors));
                    tracing::info!("the certificate of TLS has changed: new connections get it");
                    served = now;
                }
                // Two files are exchanged one after the other, and what cannot be read now may be later. It is said once.
                Err(error) if said.as_ref() != Some(&now) => {
                    tracing::warn!(
                        "the certificate of TLS has changed and cannot be used, the one before stays: {error:#}"
                    );
                    said = Some(now);
                }
                Err(_) => {}
            }
        }
    }

    fn stamps(&self) -> Stamps {
        let TlsConfig {
            certificate,
            key,
            client_ca,
            ..
        } = &self.config;
        let files = [certificate, key].into_iter().chain(client_ca);
        files.map(|file| changed(file)).collect()
    }
}

impl Acceptors {
    fn load(config: &TlsConfig) -> anyhow::Result<Self> {
        let mut http1 = server_config(config)?;
        let mut all = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        all.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            all: Arc::new(all),
            http1: Arc::new(http1),
        })
    }
}

fn server_config(config: &TlsConfig) -> anyhow::Result<ServerConfig> {
    let chain = certificates(&config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).with_context(|| {
        format!(
            "server.tls.key: {} has no private key",
            config.key.display()
        )
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                let added = roots.add(certificate);
                added.with_context(|| format!("server.tls.client_ca: {}", file.display()))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if !config.require_client_certificate {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    builder.with_single_cert(chain, key).with_context(|| {
        format!(
            "server.tls: {} and {} do not fit together",
            config.certificate.display(),
            config.key.display()
        )
    })
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("server.tls: {} cannot be read", file.display()))?;
    let all: Result<Vec<_>, _> = read.collect();
    let all = all.with_context(|| format!("server.tls: {} is no PEM file", file.display()))?;
    if all.is_empty() {
        bail!("server.tls: {} has no certificate", file.display());
    }
    Ok(all)
}

/// The names that a client's certificate is for: of hosts, in lower case, and URIs such as those of SPIFFE.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let hosts = certificate.valid_dns_names();
    let hosts = hosts.map(str::to_ascii_lowercase);
    hosts
        .chain(certificate.valid_uri_names().map(str::to_owned))
        .collect()
}
