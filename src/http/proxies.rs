//! The client behind proxies: by headers, or by the PROXY protocol, where the proxy is one that is trusted.

use std::{io, net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

static FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// The first bytes of the protocol's second version.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of the first version.
const LONGEST_LINE: usize = 107;

/// The proxies whose word counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies {
    nets: Arc<[IpNet]>,
    /// The one header in which they write the client's address: clients may send any other. None means that there is none.
    header: Option<HeaderName>,
}

impl TrustedProxies {
    /// Those of these networks, which write this header.
    pub(crate) fn new(nets: &[IpNet], header: &str) -> Self {
        Self {
            nets: nets.into(),
            header: header.parse().ok(),
        }
    }

    /// Returns true where the other end of a connection is one of them; a socket of this machine is, once there is any.
    pub(super) fn include(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => !self.nets.is_empty(),
            Some(peer) => self.nets.iter().any(|net| net.contains(&peer)),
        }
    }

    /// The client of a request: the last address of the header that no trusted proxy has, or the connection's other end.
    pub(super) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let Some(header) = self.header.as_ref().filter(|_| self.include(peer)) else {
            return peer;
        };
        let is_forwarded = *header == FORWARDED;
        let lines: Vec<&HeaderValue> = headers.get_all(header).into_iter().collect();
        let elements = lines.into_iter().rev().flat_map(elements);
        let mut client = peer;
        for element in elements {
            let text = match is_forwarded {
                true => element.and_then(for_of),
                false => element,
            };
            // Whoever is behind one that does not name it is not known: the proxy that says so is the last that is.
            let Some(address) = text.and_then(address) else {
                return client;
            };
            client = Some(address);
            if !self.include(client) {
                return client;
            }
        }
        client
    }
}

/// The elements of one line of a header, the last first; none for one that cannot be read.
fn elements(line: &HeaderValue) -> impl Iterator<Item = Option<&str>> {
    let parts = line.as_bytes().rsplit(|byte| *byte == b',');
    parts.map(|part| str::from_utf8(part).ok().map(str::trim))
}

/// The value of `for=` in an element of `Forwarded`.
///
/// Source: RFC 7239.
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| value.trim().trim_matches('"'))
    })
}

/// An address, perhaps in brackets and with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// Reads the header of the PROXY protocol, and nothing behind it. Returns the client's address; none where the proxy speaks for
/// itself, such as for a probe.
///
/// # Errors
/// When there is no such header.
///
/// Source: "The PROXY protocol, versions 1 & 2", 2025.
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        header.extend_from_slice(&rest);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let start = header.len();
        header.resize(start + length, 0);
        stream.read_exact(&mut header[start..]).await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() >= LONGEST_LINE || !header.starts_with(b"PROXY ") {
                return Err(not_proxy());
            }
            header.push(stream.read_u8().await?);
        }
    }
    source(&header).map(|client| client.map(|address| address.to_canonical()))
}

fn source(header: &[u8]) -> io::Result<Option<IpAddr>> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
            v1::Addresses::Tcp6(tcp) => Some(tcp.source_address.into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            _ if header.command == v2::Command::Local => None,
            v2::Addresses::IPv4(ip) => Some(ip.source_address.into()),
            v2::Addresses::IPv6(ip) => Some(ip.source_address.into()),
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(not_proxy()),
    }
}

fn not_proxy() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the connection does not begin with a header of the PROXY protocol",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: &str) -> TrustedProxies {
        let nets = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        TrustedProxies::new(&nets, header)
    }

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let cases: [(&str, &[u8], &str); 11] = [
            ("x-forwarded-for", b"203.0.113.7", "203.0.113.7"),
            // What the client itself wrote in front counts for nothing.
            (
                "x-forwarded-for",
                b"1.1.1.1, 203.0.113.7, 10.2.2.2",
                "203.0.113.7",
            ),
            ("x-forwarded-for", b"203.0.113.7:4711", "203.0.113.7"),
            ("x-forwarded-for", b"nonsense, 10.2.2.2", "10.2.2.2"),
            ("x-forwarded-for", b"1.1.1.1, \xff", "10.1.1.1"),
            ("x-forwarded-for", b"\xff, 203.0.113.7", "203.0.113.7"),
            (
                "forwarded",
                b"for=1.1.1.1, for=203.0.113.7;proto=https",
                "203.0.113.7",
            ),
            ("forwarded", b"for=\"[2001:db8::1]:443\"", "2001:db8::1"),
            (
                "forwarded",
                b"proto=http;For=\"203.0.113.7\"",
                "203.0.113.7",
            ),
            ("forwarded", b"for=_hidden", "10.1.1.1"),
            // The proxy does not say whom it speaks for.
            ("forwarded", b"for=1.1.1.1, proto=https", "10.1.1.1"),
        ];
        for (name, value, expected) in cases {
            let peer = Some("10.1.1.1".parse().unwrap());
            let client = proxies(name).client(peer, &headers(&[(name, value)]));
            assert_eq!(client, Some(expected.parse().unwrap()), "{name}: {value:?}");
        }
    }

    #[test]
    fn lines_are_one_list_and_other_headers_are_the_clients() {
        let headers = headers(&[
            ("x-forwarded-for", b"1.1.1.1"),
            ("x-forwarded-for", b"203.0.113.7"),
            ("forwarded", b"for=192.0.2.99"),
        ]);
        let peer = Some("10.1.1.1".parse().unwrap());
        let client = proxies("x-forwarded-for").client(peer, &headers);
        assert_eq!(client, Some("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn headers_of_others_are_not_believed() {
        let headers = headers(&[("x-forwarded-for", b"1.1.1.1")]);
        let proxies = proxies("x-forwarded-for");
        let peer: Option<IpAddr> = Some("203.0.113.7".parse().unwrap());
        assert_eq!(proxies.client(peer, &headers), peer);
        assert_eq!(TrustedProxies::default().client(None, &headers), None);
        assert_eq!(TrustedProxies::default().client(peer, &headers), peer);
        // A proxy on this machine that uses the socket of a path.
        let client = proxies.client(None, &headers);
        assert_eq!(client, Some("1.1.1.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn both_versions_of_the_header_are_read_and_no_byte_behind_them() {
        let mut second = SIGNATURE.to_vec();
        second.extend([
            0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x23, 0x8c,
        ]);
        let mut local = SIGNATURE.to_vec();
        local.extend([0x20, 0, 0, 0]);
        let first = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 9100\r\n".to_vec();
        let sixth = b"PROXY TCP6 2001:db8::1 ::1 4711 9100\r\n".to_vec();
        let unknown = b"PROXY UNKNOWN\r\n".to_vec();
        for (header, expected) in [
            (first, Some("203.0.113.7")),
            (sixth, Some("2001:db8::1")),
            (unknown, None),
            (second, Some("203.0.113.7")),
            (local, None),
        ] {
            let bytes = [&header[..], b"GET /"].concat();
            let mut stream = &bytes[..];
            let client = read_header(&mut stream).await.unwrap();
            assert_eq!(client, expected.map(|text| text.parse().unwrap()));
            assert_eq!(stream, b"GET /");
        }
        for wrong in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 nonsense\r\n",
            &[b"PROXY ", &[b'a'; 200][..]].concat(),
            b"PROXY",
        ] {
            assert!(read_header(&mut &*wrong).await.is_err());
        }
    }
}
