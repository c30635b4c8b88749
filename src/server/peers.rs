//! From which address a request comes: the connection's, or, behind proxies that the operator trusts, the one that they
//! name in `Forwarded` (RFC 7239) or `X-Forwarded-For`.
//!
//! Each proxy appends where its own request came from, so the rightmost address that is no trusted proxy's is true, and
//! everything left of it is what a client says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
pub use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies in front of this server.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    pub fn trusting(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether an address stands for a caller. Without trusted proxies, a private one may be a proxy, with everybody behind it.
    pub fn tells_callers_apart(&self, address: IpAddr) -> bool {
        !self.0.is_empty() || is_public(address.to_canonical())
    }

    /// Whether a proxy that nobody has named seems to have passed a request on.
    pub fn lack(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let names_callers = headers.contains_key(header::FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
        self.0.is_empty() && names_callers && !is_public(peer.to_canonical())
    }

    /// Where a request comes from.
    pub fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let by_either = [(header::FORWARDED, forwarded as fn(&str) -> _), (X_FORWARDED_FOR, x_forwarded_for)];
        let [standard, usual] = by_either.map(|(name, hops)| {
            let values: Vec<_> = headers.get_all(&name).iter().collect();
            let hops = values.into_iter().rev().flat_map(|value| value.to_str().map_or(vec![None], hops));
            headers.contains_key(&name).then(|| self.nearest(peer, hops))
        });
        match (standard, usual) {
            (Some(address), None) | (None, Some(address)) => address,
            (Some(standard), Some(usual)) if standard == usual => usual,
            // The proxy wrote one of the two and passed the other on, as the client made it up.
            (Some(_), Some(_)) | (None, None) => peer,
        }
    }

    /// The first hop from the right that is no trusted proxy. Where one has hidden its name, the proxy that heard from it.
    fn nearest(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops {
            let Some(address) = hop.map(|address| address.to_canonical()) else { break };
            nearest = address;
            if !self.trusts(address) {
                break;
            }
        }
        nearest
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The hops that a line of `Forwarded` names, the nearest first; `None` for one that is hidden or no address.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let node = |element: &str| {
        let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, node) = pairs.find(|(name, _)| name.trim_end().eq_ignore_ascii_case("for"))?;
        address(node.trim().trim_matches('"'))
    };
    line.rsplit(',').map(node).collect()
}

fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.rsplit(',').map(|hop| address(hop.trim())).collect()
}

/// An address, with or without a port: `192.0.2.1:80`, `[2001:db8::1]:80`, `[2001:db8::1]`, `2001:db8::1`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

/// Whether the internet leads to an address (RFC 6890); what does not is a machine or network of the operator's.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified() || is_shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified())
        }
    }
}

/// Who has one IPv6 address has the 64 bits behind its network's too (RFC 4291, section 2.5.4).
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn caller(trusted: &[&str], peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let proxies = Proxies::trusting(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        proxies.caller(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_rightmost_that_no_trusted_proxy_has_is_the_caller() {
        let trusted = ["10.0.0.0/8", "::1/128"];
        for (name, value, expected) in [
            ("x-forwarded-for", "203.0.113.7", "203.0.113.7"),
            ("x-forwarded-for", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
            ("x-forwarded-for", "1.1.1.1, 203.0.113.7 , 10.2.3.4", "203.0.113.7"),
            ("x-forwarded-for", "203.0.113.7:4711", "203.0.113.7"),
            ("x-forwarded-for", "2001:db8::7", "2001:db8::7"),
            ("x-forwarded-for", "[2001:db8::7]:80,10.0.0.2", "2001:db8::7"),
            ("x-forwarded-for", "::ffff:203.0.113.7", "203.0.113.7"),
            ("x-forwarded-for", "10.9.9.9, 10.0.0.2", "10.9.9.9"),
            ("x-forwarded-for", "203.0.113.7, nonsense", "10.0.0.1"),
            ("x-forwarded-for", "203.0.113.7, nonsense, 10.0.0.2", "10.0.0.2"),
            ("x-forwarded-for", "", "10.0.0.1"),
            ("forwarded", "for=203.0.113.7;proto=https;by=10.0.0.3", "203.0.113.7"),
            ("forwarded", "For=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("forwarded", "for=1.1.1.1, proto=https; FOR=203.0.113.7, for=10.0.0.2", "203.0.113.7"),
            ("forwarded", "for=203.0.113.7, for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("forwarded", "for=unknown", "10.0.0.1"),
            ("forwarded", "proto=https", "10.0.0.1"),
        ] {
            assert_eq!(caller(&trusted, "10.0.0.1", &[(name, value)]), expected, "{name}: {value}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")];
        assert_eq!(caller(&trusted, "::ffff:10.0.0.1", &lines), "203.0.113.7");
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let forged = [("x-forwarded-for", "203.0.113.7")];
        assert_eq!(caller(&[], "10.0.0.1", &forged), "10.0.0.1");
        assert_eq!(caller(&["10.0.0.0/8"], "198.51.100.1", &forged), "198.51.100.1");
        // One of the two is the proxy's, and who knows which?
        let both = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &both), "10.0.0.1");
        let same = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")];
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1", &same), "203.0.113.7");
    }

    #[test]
    fn private_peers_stand_for_nobody_until_proxies_are_named() {
        let (none, some) = (Proxies::default(), Proxies::trusting(vec!["10.0.0.0/8".parse().unwrap()]));
        for private in ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1"]
        {
            let address = private.parse().unwrap();
            assert!(!none.tells_callers_apart(address) && some.tells_callers_apart(address), "{private}");
        }
        for public in ["203.0.113.7", "100.128.0.1", "2001:db8::1"] {
            assert!(none.tells_callers_apart(public.parse().unwrap()), "{public}");
        }
        assert!(!none.tells_callers_apart("::ffff:127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_block() {
        let block_of = |text: &str| block(text.parse().unwrap()).to_string();
        assert_eq!(block_of("2001:db8::ffff:1"), "2001:db8::");
        assert_eq!(block_of("2001:db8:0:1::1"), "2001:db8:0:1::");
        assert_eq!(block_of("::ffff:203.0.113.1"), "203.0.113.1");
    }
}
