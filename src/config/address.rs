//! Address blocks (CIDR, RFC 4632, RFC 4291 section 2.3).

use std::net::{IpAddr, Ipv6Addr};

use super::AddressBlock;

impl AddressBlock {
    /// `10.0.0.0/8`, `::1`: an address is the block of itself alone. Bits behind the prefix do not
    /// matter. The error says what was expected.
    pub fn parse(text: &str) -> Result<AddressBlock, &'static str> {
        const EXPECTED: &str = "must be an address or a block, such as 10.0.0.1 or 10.0.0.0/8";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|&bits| bits <= most).ok_or(EXPECTED)?
            }
            Some(_) => return Err(EXPECTED),
        };
        // A block of mapped addresses is the block of the IPv4 addresses that they stand for.
        match (address.to_canonical(), prefix_bits) {
            (network @ IpAddr::V4(_), bits) if address.is_ipv6() && bits >= 96 => {
                Ok(AddressBlock { network, prefix_bits: bits - 96 })
            }
            _ => Ok(AddressBlock { network: address, prefix_bits }),
        }
    }

    /// Whether the address lies in the block. An IPv4-mapped IPv6 address, as a socket of both
    /// families shows an IPv4 peer, counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, address) = match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                // Both moved to the top, so that the prefix counts from there.
                (u128::from(network.to_bits()) << 96, u128::from(address.to_bits()) << 96)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits()),
            _ => return false,
        };
        let behind = Ipv6Addr::BITS.saturating_sub(u32::from(self.prefix_bits));
        // A shift by all 128 bits is the empty prefix, which all addresses share.
        (network ^ address).checked_shr(behind).unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(block: &str, address: &str) -> bool {
        AddressBlock::parse(block).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn blocks_contain_what_shares_their_prefix() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.9.9.9", "9.1.2.3"),
            ("192.168.1.1", "192.168.1.1", "192.168.1.2"),
            ("192.168.1.128/25", "192.168.1.255", "192.168.1.127"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("fe80::1/128", "fe80::1", "fe80::"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ] {
            assert!(contains(block, inside), "{inside} in {block}");
            assert!(!contains(block, outside), "{outside} not in {block}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0/8",
            "10.0.0.0/8/8",
            "localhost",
            " 10.0.0.1",
            "10.0.0.0/999",
            "fe80::1%eth0",
            "[::1]",
            "10.0.0.1:80",
            "10.0.0.0/255.0.0.0",
        ] {
            assert!(AddressBlock::parse(text).is_err(), "{text}");
        }
    }
}
