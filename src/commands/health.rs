//! `embedgate health`: asks the server of a configuration how it is, for probes where there is no other program.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use embedgate_config::{Config, Environment, TlsConfig};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::Failure;
use crate::args::HealthArgs;

/// The answer must come within this time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The beginning of an answer: its status is all that is wanted.
const MOST: u64 = 64 << 10;

pub(super) fn run(
    file: Option<&Path>,
    args: &HealthArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    // Models need not be there for it.
    let config = Config::load_without_models(file, environment)?;
    let path = if args.live { "/livez" } else { "/readyz" };
    let answer = ask(&config, args, path)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(anyhow!("{path} answers {status}").into());
    }
    Ok(())
}

/// Asks at the path of this machine, where there is one, else at the address.
fn ask(config: &Config, args: &HealthArgs, path: &str) -> anyhow::Result<String> {
    if let (None, Some(socket)) = (args.listen, &config.server.unix_socket) {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("nobody listens at {}", socket.display()))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        return get(stream, path);
    }
    let address = reachable(args.listen.unwrap_or(config.server.listen));
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("nobody listens at {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    match &config.server.tls {
        None => get(stream, path),
        Some(tls) => get(encrypted(stream, address.ip(), tls)?, path),
    }
}

/// An address that stands for all of this machine's is reached by the machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn get(mut stream: impl Read + Write, path: &str) -> anyhow::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let read = stream.take(MOST).read_to_end(&mut answer);
    // A peer of TLS may end without saying so; the status has come by then.
    if answer.is_empty() {
        read?;
        bail!("no answer came");
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// TLS with the server that has the certificate of the configuration, whatever name it is for.
fn encrypted(
    stream: TcpStream,
    ip: IpAddr,
    tls: &TlsConfig,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    if tls.require_client_certificate {
        bail!(
            "server.tls.require_client_certificate: set server.unix_socket, where no certificate is asked for"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let expected = CertificateDer::from_pem_file(&tls.certificate)
        .with_context(|| format!("server.tls.certificate: {}", tls.certificate.display()))?;
    let verifier = ThisServer {
        expected,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::IpAddress(ip.into()))?;
    Ok(StreamOwned::new(connection, stream))
}

/// Accepts one certificate: the name of the machine that is asked is no matter, and the key is proven as ever.
#[derive(Debug)]
struct ThisServer {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ThisServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *certificate == self.expected {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General(
                "the server has another certificate than server.tls.certificate".into(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
