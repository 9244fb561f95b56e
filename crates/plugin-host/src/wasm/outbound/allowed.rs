//! The URLs that a plugin may ask.

use url::{Host, Url};

use super::{Outbound, addresses::is_public};

impl Outbound {
    /// Returns true when a URL was granted.
    pub(super) fn is_allowed(&self, url: &Url) -> bool {
        // The parser has taken dots out of the path, but servers may read these in their own way.
        let path = url.path().to_ascii_lowercase();
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && !["%2e", "%2f", "%5c", "%25", "%3b", "\\", ";"]
                .iter()
                .any(|odd| path.contains(odd));
        let is_public = match url.host() {
            Some(Host::Ipv4(address)) => is_public(address.into()),
            Some(Host::Ipv6(address)) => is_public(address.into()),
            // Names are looked at when they are resolved.
            Some(Host::Domain(_)) => true,
            None => false,
        };
        is_plain
            && (is_public || self.config.allow_private)
            && self.allowed.iter().any(|allowed| covers(allowed, url))
    }
}

/// Returns true when the URL has the origin of the allowed one, and its path or one below.
fn covers(allowed: &Url, url: &Url) -> bool {
    let base = allowed.path().trim_end_matches('/');
    let below = url.path().strip_prefix(base);
    allowed.origin() == url.origin()
        && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::tests::outbound;
    use super::*;

    #[test]
    fn only_what_was_granted_is_allowed() {
        let outbound = outbound(&["https://idp.example.com/introspect"], false);
        let allows = |url: &str| outbound.is_allowed(&Url::parse(url).unwrap());
        for url in [
            "https://idp.example.com/introspect",
            "https://idp.example.com:443/introspect/token?x=1",
            "https://IDP.example.com/a/../introspect",
        ] {
            assert!(allows(url), "{url}");
        }
        for url in [
            "http://idp.example.com/introspect",
            "https://idp.example.com/",
            "https://idp.example.com/introspection",
            "https://idp.example.com/introspect/../admin",
            "https://idp.example.com/introspect/%2e%2e/admin",
            "https://idp.example.com/introspect/%252e%252e/admin",
            "https://idp.example.com/introspect/..;/admin",
            "https://idp.example.com:8443/introspect",
            "https://idp.example.com@evil.example/introspect",
            "https://user:pw@idp.example.com/introspect",
            "https://evil.example/introspect",
            "file:///introspect",
        ] {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn private_addresses_need_their_own_grant() {
        let hosts = [
            "127.0.0.1",
            "169.254.169.254",
            "10.1.2.3",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            "[64:ff9b:1::808:808]",
            "2130706433",
            "0x7f.1",
        ];
        for host in hosts {
            let url = format!("http://{host}/");
            let parsed = Url::parse(&url).unwrap();
            assert!(!outbound(&[&url], false).is_allowed(&parsed), "{host}");
            assert!(outbound(&[&url], true).is_allowed(&parsed), "{host}");
        }
        for address in ["8.8.8.8", "2606:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
