//! Whose request it is: the peer, or behind a trusted proxy what the proxy says (RFC 7239). Never believes others.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::Cidr;

/// The address of the client. Goes from the last proxy towards the client for as long as addresses are trusted ones.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    for hop in hops(headers).into_iter().rev() {
        // An obfuscated or unreadable hop: the one before it is the last that is known.
        let Some(address) = hop else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Every hop the headers name, the client first.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name: &str| {
        let values = headers.get_all(name).iter();
        values.map(|v| v.to_str().unwrap_or("")).collect::<Vec<_>>().join(",")
    };
    if headers.contains_key(FORWARDED) {
        return lines("forwarded").split(',').filter(|e| !e.trim().is_empty()).map(forwarded).collect();
    }
    lines("x-forwarded-for").split(',').filter(|e| !e.trim().is_empty()).map(node).collect()
}

/// The `for` of one `Forwarded` element.
fn forwarded(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| node(value))?
    })
}

/// An address with or without quotes, brackets and port.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, fields: &[(&'static str, &str)], expected: &str) {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "2001:db8::/64"].iter().map(|r| r.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        assert_eq!(client(peer.parse().unwrap(), &headers, &trusted), expected.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        check("192.0.2.1", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.1");
        check("::ffff:192.0.2.1", &[("forwarded", "for=198.51.100.1")], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 198.51.100.7, 10.9.9.9")], "198.51.100.7");
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1;proto=https, For=\"[2001:db9::7]:4711\"")], "2001:db9::7");
        check("2001:db8::1", &[("forwarded", "by=x;for=198.51.100.7:80")], "198.51.100.7");
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")], "1.1.1.1");
    }

    #[test]
    fn nonsense_stops_at_what_is_known() {
        check("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden, for=10.2.2.2")], "10.2.2.2");
        check("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", ",;=\"[[")], "10.0.0.1");
    }
}
