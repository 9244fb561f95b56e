//! Addresses of this machine with a port, by number or by name.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Deserializer, de::Error as _};

/// An address of this machine with a port, by number or by name: of a name's addresses the first of IPv4, else the first.
///
/// # Errors
/// A sentence that says what is wrong with the text.
pub fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok()
    });
    if !has_port {
        return Err(format!(
            "\"{text}\" is no address with a port, write it as \"127.0.0.1:9100\", \"0.0.0.0:9100\" or \"localhost:9100\""
        ));
    }
    let found = text.to_socket_addrs();
    let found: Vec<SocketAddr> = found
        .map_err(|error| format!("\"{text}\" names no address: {error}"))?
        .collect();
    let of_v4 = found.iter().find(|address| address.is_ipv4());
    of_v4
        .or(found.first())
        .copied()
        .ok_or_else(|| format!("\"{text}\" names no address"))
}

/// Reads an address and port.
pub(super) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    resolve(&text).map_err(D::Error::custom)
}

/// Reads an address and port, where there is one.
pub(super) fn optional_socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    socket_address(deserializer).map(Some)
}
