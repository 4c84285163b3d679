//! Who asks to come in: the client's address behind trusted proxies, and its origin.

use std::net::{IpAddr, SocketAddr};

use crate::config::{AddressBlock, OriginPattern};

/// The client's address (`WS_TRUSTED_PROXIES`): the rightmost hop that is no trusted proxy.
///
/// Each trusted proxy vouches for the entry that it appended, so the walk goes from the peer
/// leftwards and ends at the first address that is not trusted. An entry that is no address ends
/// it too: the last hop known is then the best answer.
pub fn client_address(peer: IpAddr, forwarded_for: &[&[u8]], trusted: &[AddressBlock]) -> IpAddr {
    let lists = forwarded_for.iter().rev();
    let mut hops = lists
        .flat_map(|list| list.rsplit(|&byte| byte == b','))
        .filter(|hop| !hop.trim_ascii().is_empty());
    let mut address = peer.to_canonical();
    while trusted.iter().any(|block| block.contains(address)) {
        let Some(hop) = hops.next().and_then(parse_hop) else { break };
        address = hop;
    }
    address
}

/// An address as proxies write it: plain, or with a port, IPv6 then in brackets.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = plain.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// What an address counts as for `max_connections_per_ip`: of IPv6 the network, since whoever has
/// one address has its /64 with all others in it.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

/// Whether `WS_ALLOWED_ORIGINS` lets a request in. Without an `Origin` it comes from no browser's
/// page, and the rule protects nobody.
pub fn origin_is_allowed(origin: Option<&[u8]>, allowed: Option<&[OriginPattern]>) -> bool {
    match (origin, allowed) {
        (None, _) | (_, None) => true,
        (Some(origin), Some(allowed)) => std::str::from_utf8(origin)
            .is_ok_and(|origin| allowed.iter().any(|pattern| pattern.matches(origin))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded_for: &[&str], trusted: &[(&str, u8)]) -> String {
        let forwarded_for: Vec<_> = forwarded_for.iter().map(|value| value.as_bytes()).collect();
        let block = |&(network, prefix_bits): &(&str, u8)| AddressBlock {
            network: network.parse().unwrap(),
            prefix_bits,
        };
        let trusted: Vec<_> = trusted.iter().map(block).collect();
        client_address(peer.parse().unwrap(), &forwarded_for, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let net = [("10.0.0.0", 8), ("2001:db8::", 32)];
        assert_eq!(address("1.2.3.4", &["9.9.9.9"], &[]), "1.2.3.4");
        assert_eq!(address("1.2.3.4", &["9.9.9.9"], &net), "1.2.3.4");
        assert_eq!(address("10.0.0.1", &[], &net), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &["9.9.9.9"], &net), "9.9.9.9");
        // What the client wrote itself stands further left.
        assert_eq!(address("10.0.0.1", &["5.5.5.5, 9.9.9.9,10.1.1.1"], &net), "9.9.9.9");
        assert_eq!(address("10.0.0.1", &["5.5.5.5", "9.9.9.9 , 10.1.1.1"], &net), "9.9.9.9");
        assert_eq!(address("10.0.0.1", &["10.3.3.3, 10.2.2.2"], &net), "10.3.3.3");
    }

    #[test]
    fn neighbours_in_a_network_count_together() {
        let counted = |text: &str| counted_address(text.parse().unwrap()).to_string();
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("::ffff:1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("2001:db8:0:1:2:3:4:5"), "2001:db8:0:1::");
        assert_eq!(counted("::1"), "::");
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        let net = [("10.0.0.0", 8), ("2001:db8::", 32)];
        assert_eq!(address("::ffff:10.0.0.1", &["9.9.9.9:1234"], &net), "9.9.9.9");
        assert_eq!(address("2001:db8::1", &["[2002::5]:99"], &net), "2002::5");
        assert_eq!(address("2001:db8::1", &["[2002::5]"], &net), "2002::5");
        assert_eq!(address("2001:db8::1", &["2002::5"], &net), "2002::5");
        assert_eq!(address("10.0.0.1", &["9.9.9.9, unknown, 10.2.2.2"], &net), "10.2.2.2");
        assert_eq!(address("10.0.0.1", &["9.9.9.9,, ", ""], &net), "9.9.9.9");
        assert_eq!(address("10.0.0.1", &["\u{e9}"], &net), "10.0.0.1");
        assert_eq!(address("7.7.7.7", &["9.9.9.9"], &[("0.0.0.0", 0)]), "9.9.9.9");
        assert_eq!(address("7.7.7.7", &["9.9.9.9"], &[("7.7.7.7", 32)]), "9.9.9.9");
        assert_eq!(address("7.7.7.8", &["9.9.9.9"], &[("7.7.7.7", 32)]), "7.7.7.8");
    }

    #[test]
    fn an_origin_must_be_listed_if_there_is_a_list_and_an_origin() {
        let allowed = OriginPattern::parse("https://*.example.com").map(|pattern| [pattern]);
        let allowed = allowed.unwrap();
        assert!(origin_is_allowed(Some(b"https://a.example.com"), Some(&allowed)));
        assert!(!origin_is_allowed(Some(b"https://example.com"), Some(&allowed)));
        assert!(!origin_is_allowed(Some(b"\xff"), Some(&allowed)));
        assert!(origin_is_allowed(None, Some(&allowed)));
        assert!(origin_is_allowed(Some(b"\xff"), None));
    }
}
