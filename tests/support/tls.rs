//! TLS for the tests: certificates made on the spot by `openssl`, and relays between plain sockets
//! and TLS, so that everything else here can be used on either side.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use serde_json::{Value, json};

use super::wait::TempDir;

/// An authority, and what it has signed, in a folder that vanishes.
pub struct Authority {
    dir: TempDir,
}

/// The paths of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Pair {
    /// As `WS_SSL` has it.
    pub fn config(&self) -> Value {
        json!({ "cert": self.cert, "key": self.key })
    }
}

/// `openssl genpkey`'s words for the kinds of keys.
pub const ECDSA: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
pub const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
pub const ED25519: &str = "-algorithm ED25519";

/// For this machine, by name and address.
pub const HERE: &str = "DNS:localhost,IP:127.0.0.1";

impl Authority {
    pub fn new() -> Authority {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let authority = Authority { dir: TempDir::new() };
        authority.key("ca", ECDSA);
        let name = format!("House-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        authority.openssl(&format!("req -x509 -key ca.key -out ca.pem -days 2 -subj /CN={name}"));
        authority
    }

    /// An authority below this one, for so many days.
    pub fn deputy(&self, days: i32) -> Authority {
        let deputy = Authority { dir: TempDir::new() };
        deputy.key("ca", ECDSA);
        deputy.openssl("req -new -key ca.key -out ca.csr -subj /CN=Deputy");
        std::fs::write(deputy.path("ca.ext"), "basicConstraints=CA:TRUE\n").unwrap();
        let of = |name: &str| self.path(name).display().to_string();
        let (cert, key) = (of("ca.pem"), of("ca.key"));
        deputy.openssl(&format!(
            "x509 -req -in ca.csr -CA {cert} -CAkey {key} -CAcreateserial -days {days} \
             -extfile ca.ext -out ca.pem"
        ));
        deputy
    }

    /// A certificate for this machine, with this authority's own behind it.
    pub fn with_chain(&self, name: &str) -> Pair {
        let pair = self.here(name);
        let chain = [&pair.cert, &self.cafile()].map(|path| std::fs::read(path).unwrap());
        std::fs::write(&pair.cert, chain.concat()).unwrap();
        pair
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The authority's own certificate.
    pub fn cafile(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    /// A certificate for this machine.
    pub fn here(&self, name: &str) -> Pair {
        self.sign(name, ECDSA, HERE, 2)
    }

    /// A certificate for these names; `days` below 0: it has expired.
    pub fn sign(&self, name: &str, kind: &str, names: &str, days: i32) -> Pair {
        self.key(name, kind);
        self.openssl(&format!("req -new -key {name}.key -out {name}.csr -subj /CN={name}.example"));
        let text = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.path(&format!("{name}.ext")), text).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
             -extfile {name}.ext -out {name}.pem"
        ));
        self.pair(name)
    }

    pub fn pair(&self, name: &str) -> Pair {
        let path = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        Pair { cert: path("pem"), key: path("key") }
    }

    fn key(&self, name: &str, kind: &str) {
        self.openssl(&format!("genpkey {kind} -out {name}.key"));
    }

    /// Runs it in the folder.
    pub fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("the tests need openssl in the PATH");
        assert!(output.status.success(), "openssl {arguments}: {output:?}");
    }
}

fn chain(path: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

/// What a client of the tests begins with.
pub fn client_config(cafile: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(chain(cafile).remove(0)).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

pub fn server_config(pair: &Pair) -> ServerConfig {
    let key = PrivateKeyDer::from_pem_file(Path::new(&pair.key)).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(&pair.cert), key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// What the connections of a relay were like.
#[derive(Default)]
pub struct Seen {
    /// Connections that came.
    pub connections: AtomicUsize,
    /// Handshakes that took up an earlier session.
    pub resumed: AtomicUsize,
    /// The names that clients asked for.
    pub names: Mutex<Vec<String>>,
    pub protocols: Mutex<Vec<String>>,
    pub versions: Mutex<Vec<String>>,
    pub errors: Mutex<Vec<String>>,
}

/// Takes connections at `port` and passes them on.
pub struct Relay {
    pub port: u16,
    pub seen: Arc<Seen>,
}

impl Relay {
    /// Plain to TLS: what connects here comes to `port` over TLS.
    pub fn to_tls(port: u16, config: ClientConfig) -> Relay {
        let config = Arc::new(config);
        Relay::start(port, move || {
            let name = ServerName::try_from("localhost").unwrap();
            (ClientConnection::new(config.clone(), name).unwrap().into(), false)
        })
    }

    /// TLS to plain.
    pub fn from_tls(port: u16, config: ServerConfig) -> Relay {
        let config = Arc::new(config);
        Relay::start(port, move || (ServerConnection::new(config.clone()).unwrap().into(), true))
    }

    fn start(port: u16, session: impl Fn() -> (Connection, bool) + Send + 'static) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let seen = relay.seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.connections.fetch_add(1, Ordering::Relaxed);
                let (connection, is_server) = session();
                let Ok(other) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (plain, secure) = if is_server { (other, stream) } else { (stream, other) };
                let seen = seen.clone();
                thread::spawn(move || pass(connection, plain, secure, &seen));
            }
        });
        relay
    }
}

/// Passes bytes both ways until both ends have closed.
fn pass(connection: Connection, plain: TcpStream, secure: TcpStream, seen: &Arc<Seen>) {
    let _ = plain.set_nodelay(true);
    let _ = secure.set_nodelay(true);
    let connection = Arc::new(Mutex::new(connection));
    let outwards = {
        let (connection, mut plain) = (connection.clone(), plain.try_clone().unwrap());
        let mut secure = secure.try_clone().unwrap();
        move || encrypt(&connection, &mut plain, &mut secure)
    };
    let result = decrypt(&connection, plain, secure, seen, outwards);
    if let Err(error) = result {
        seen.errors.lock().unwrap().push(error.to_string());
    }
}

fn decrypt(
    connection: &Mutex<Connection>,
    mut plain: TcpStream,
    mut secure: TcpStream,
    seen: &Seen,
    outwards: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut outwards = Some(outwards);
    connection.lock().unwrap().write_tls(&mut secure)?;
    let mut buffer = [0; 16_384];
    loop {
        let count = secure.read(&mut buffer)?;
        let mut clear = Vec::new();
        {
            let mut connection = connection.lock().unwrap();
            let mut input = &buffer[..count];
            while !input.is_empty() {
                connection.read_tls(&mut input)?;
                let processed = connection.process_new_packets();
                while connection.wants_write() {
                    connection.write_tls(&mut secure)?;
                }
                if let Err(error) = processed {
                    let _ = secure.shutdown(Shutdown::Write);
                    let _ = plain.shutdown(Shutdown::Both);
                    return Err(io::Error::other(error));
                }
                drop(connection.reader().read_to_end(&mut clear));
            }
            if !connection.is_handshaking()
                && let Some(outwards) = outwards.take()
            {
                note(&connection, seen);
                thread::spawn(outwards);
            }
        }
        plain.write_all(&clear)?;
        if count == 0 {
            return plain.shutdown(Shutdown::Write);
        }
    }
}

fn encrypt(connection: &Mutex<Connection>, plain: &mut TcpStream, secure: &mut TcpStream) {
    let mut buffer = [0; 16_384];
    loop {
        let count = plain.read(&mut buffer).unwrap_or(0);
        let mut connection = connection.lock().unwrap();
        if count == 0 {
            connection.send_close_notify();
        }
        connection.writer().write_all(&buffer[..count]).unwrap();
        while connection.wants_write() {
            if connection.write_tls(secure).is_err() {
                return;
            }
        }
        if count == 0 {
            let _ = secure.shutdown(Shutdown::Write);
            return;
        }
    }
}

fn note(connection: &Connection, seen: &Seen) {
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        seen.resumed.fetch_add(1, Ordering::Relaxed);
    }
    let protocol = String::from_utf8_lossy(connection.alpn_protocol().unwrap_or_default());
    seen.protocols.lock().unwrap().push(protocol.into_owned());
    seen.versions.lock().unwrap().push(format!("{:?}", connection.protocol_version().unwrap()));
    if let Connection::Server(server) = connection {
        let name = server.server_name().unwrap_or_default();
        seen.names.lock().unwrap().push(name.to_owned());
    }
}
