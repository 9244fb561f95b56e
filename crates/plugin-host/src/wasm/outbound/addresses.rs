//! Addresses that belong to the internet, and names that lead to them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves names, and keeps addresses of this machine and its network to itself. The connection is made to what comes
/// from here, so a name cannot have another address by then.
pub(super) struct PublicNames {
    pub(super) allow_private: bool,
}

/// The reasons why a name gives no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("the name has no address")]
    Unknown,
    #[error("the name has private addresses only")]
    Private,
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| Unresolved::Unknown)?.collect();
            if found.is_empty() {
                return Err(Unresolved::Unknown.into());
            }
            let usable: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if usable.is_empty() {
                return Err(Unresolved::Private.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Returns true when an address belongs to the internet: not to this machine, its networks, or the ranges that stand
/// for either.
///
/// Source: the registries of special-purpose addresses of IANA.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b & 0xfe) == 18))
        }
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public(v4),
            // Everything that is handed out lies in 2000::/3; 2001:db8::/32 is for documentation.
            None => {
                let [a, b, ..] = v6.segments();
                // Teredo, 2001::/32, leads to any IPv4 address.
                (a & 0xe000) == 0x2000 && (a, b) != (0x2001, 0x0db8) && (a, b) != (0x2001, 0)
            }
        },
    }
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded_v4(v6: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, _, _, _, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(IpAddr::from([a, b, c, d]))
    };
    match (a, b) {
        _ if v6.to_ipv4_mapped().is_some() => v4(g, h),
        // NAT64 and 6to4.
        (0x64, 0xff9b) if c == 0 => v4(g, h),
        (0x2002, _) => v4(b, c),
        _ => None,
    }
}
