//! Where everybody lives.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Hosts of services; their place in this list is their last octet.
pub const SERVICE_HOSTS: [&str; 5] = ["full", "some", "bare", "all", "door"];
const REDIS_HOSTS: [&str; 2] = ["redis", "redis-alt"];

/// An address that nobody answers at.
pub const DEAD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9));

/// The address of a name.
pub fn of_host(host: &str) -> IpAddr {
    let name = host.strip_suffix(".test").expect("all names end alike");
    let place = |hosts: &[&str]| hosts.iter().position(|known| *known == name);
    let (net, place) = match (place(&SERVICE_HOSTS), place(&REDIS_HOSTS)) {
        (Some(place), _) => (1, place),
        (_, Some(place)) => (2, place),
        _ => panic!("nobody lives at {host}"),
    };
    IpAddr::V4(Ipv4Addr::new(10, 0, net, place as u8))
}

/// Which Redis an address is.
pub fn redis_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[2] == 2 => {
            assert_eq!(address.port(), 6379);
            Some(ip.octets()[3] as usize)
        }
        _ => None,
    }
}

/// Which Redis has a name.
pub fn redis_named(host: &str) -> Option<usize> {
    let name = host.strip_suffix(".test")?;
    REDIS_HOSTS.iter().position(|known| *known == name)
}

/// Which service host an address is.
pub fn service_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[2] == 1 => {
            assert_eq!(address.port(), 80);
            Some(ip.octets()[3] as usize)
        }
        _ => None,
    }
}

/// A client's address; a few share each.
pub fn of_client(client: usize) -> (SocketAddr, u8) {
    let octet = (client % 3) as u8;
    (SocketAddr::from(([192, 0, 2, octet], 40_000 + client as u16)), octet)
}
