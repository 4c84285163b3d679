//! The ports that peers come in by.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes ahead of `accept`.
const BACKLOG: i32 = 4096;

/// Addresses of one host name that are bound.
const ADDRESSES_MAX: usize = 16;

/// Where the demo is, and nowhere else.
pub const LOOPBACK: &str = "127.0.0.1";

/// The listening sockets of one port: one for each address of its host.
pub struct Listeners {
    first_token: usize,
    sockets: Vec<TcpListener>,
    /// Some of them may have connections: edges come once.
    ready: bool,
}

impl Listeners {
    pub fn new(first_token: usize) -> Listeners {
        Listeners { first_token, sockets: Vec::new(), ready: false }
    }

    /// Binds all addresses of `host` (empty: all of the machine's). Port 0 picks one.
    pub fn open(
        &mut self,
        host: &str,
        port: u16,
        reuse_port: bool,
        registry: &Registry,
    ) -> Result<(), String> {
        let mut port = port;
        for address in addresses(host, port)? {
            let address = SocketAddr::new(address.ip(), port);
            let token = Token(self.first_token + self.sockets.len());
            let bound = bind(address, reuse_port).and_then(|mut listener| {
                registry.register(&mut listener, token, Interest::READABLE)?;
                Ok((listener.local_addr()?, listener))
            });
            match bound {
                Ok((local, listener)) => {
                    port = local.port();
                    self.sockets.push(listener);
                }
                // A name like localhost may have an address that this machine does not.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => return Err(format!("cannot listen on {address}: {error}")),
            }
        }
        if self.sockets.is_empty() {
            return Err(format!("cannot listen on {host}:{port}: no such address here"));
        }
        self.ready = true;
        Ok(())
    }

    pub fn close(&mut self, registry: &Registry) {
        for mut listener in self.sockets.drain(..) {
            // It is closed in any case.
            let _ = registry.deregister(&mut listener);
        }
        self.ready = false;
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.sockets.first()?.local_addr().ok()
    }

    pub fn is_open(&self) -> bool {
        !self.sockets.is_empty()
    }

    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + ADDRESSES_MAX).contains(&token.0)
    }

    pub fn set_ready(&mut self) {
        self.ready = !self.sockets.is_empty();
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The next connection that waits. An error leaves the port ready: no new edge would come.
    pub fn accept(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        if !self.ready {
            return None;
        }
        for listener in &self.sockets {
            loop {
                match listener.accept() {
                    Ok(accepted) => return Some(Ok(accepted)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        self.ready = false;
        None
    }
}

/// Errors of a connection that broke before it was accepted: the next one may be well.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if host.is_empty() {
        // One IPv6 socket takes IPv4 as well, where there is IPv6.
        let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
        let has_ipv6 =
            Socket::new(Domain::IPV6, Type::STREAM, None).is_ok() && bind(all, true).is_ok();
        let all_ipv4 = (Ipv4Addr::UNSPECIFIED, port).into();
        return Ok(vec![if has_ipv6 { all } else { all_ipv4 }]);
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found = (host, port).to_socket_addrs();
    let found = found.map_err(|error| format!("cannot listen on {host}:{port}: {error}"))?;
    let mut addresses = Vec::new();
    for address in found.take(ADDRESSES_MAX) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Whether a port of loopback can be listened on.
///
/// # Errors
/// Why not.
pub fn check_port(port: u16) -> Result<(), String> {
    bound(LOOPBACK, port).map(drop)
}

/// Ports of loopback that nobody listens on.
///
/// # Errors
/// There are not so many.
pub fn any_free_ports<const COUNT: usize>() -> Result<[u16; COUNT], String> {
    // All are held until the last one is found, so that no two are the same.
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let (local, listener) = bound(LOOPBACK, 0)?;
        *port = local.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Listens on an address, for as long as what is given lives.
fn bound(host: &str, port: u16) -> Result<(SocketAddr, TcpListener), String> {
    let refused = |error: io::Error| format!("cannot listen on {host}:{port}: {error}");
    let address = addresses(host, port)?.first().copied();
    let address = address.ok_or_else(|| format!("cannot listen on {host}: no such address"))?;
    let listener = bind(address, false).map_err(refused)?;
    Ok((listener.local_addr().map_err(refused)?, listener))
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    // On Linux, what is accepted inherits it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}
