//! Certificates, keys and roots from PEM (RFC 7468), as sessions begin with them. All is checked
//! here: what is loaded works.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::verify::Verifier;
use crate::config::{Config, KeyPair, Service};

/// The protocol of all that is HTTP here (RFC 7301, section 6).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Where certificates come from: the shell reads them.
pub struct Files<'a> {
    /// The bytes of a file, or why there are none.
    pub read: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// The roots that the system trusts, or why there are none.
    pub system_roots: &'a dyn Fn() -> Result<Vec<CertificateDer<'static>>, String>,
}

/// What sessions begin with, as far as the configuration needs it.
#[derive(Clone, Default)]
pub struct Keys {
    /// For clients; `None`: their port is not TLS.
    pub clients: Option<Arc<ServerConfig>>,
    /// For callbacks.
    pub services: Option<Arc<ClientConfig>>,
    /// For `REDIS` and `REDIS_ALT`.
    pub redis: [Option<Arc<ClientConfig>>; 2],
}

impl Keys {
    /// Loads what a configuration names.
    ///
    /// # Errors
    /// One for each thing that is wrong, by key and file.
    pub fn load(config: &Config, files: &Files<'_>) -> Result<Keys, Vec<String>> {
        let mut loader =
            Loader { files, provider: Arc::new(ring::default_provider()), errors: vec![] };
        let mut keys = Keys::default();
        if let Some(pair) = &config.ws_ssl {
            keys.clients = loader.server(pair);
        }
        if calls_over_tls(config) {
            let cafile = config.http.ssl_cafile.as_deref();
            keys.services = loader.client("HTTP", cafile, None, &[HTTP_1_1]);
        }
        let redis = [Some(&config.redis), config.redis_alt.as_ref()];
        let used = redis.map(|redis| redis.filter(|_| config.broker.is_none()));
        for ((redis, name), slot) in used.iter().zip(["REDIS", "REDIS_ALT"]).zip(&mut keys.redis) {
            if let Some(tls) = redis.and_then(|redis| redis.tls.as_ref()) {
                let client = tls.client.as_ref();
                *slot = loader.client(name, tls.ssl_cafile.as_deref(), client, &[]);
            }
        }
        if loader.errors.is_empty() { Ok(keys) } else { Err(loader.errors) }
    }

    /// Takes over what was loaded anew, where a reload can: links to Redis keep what they have,
    /// unless they are configured as before.
    pub fn renew(&mut self, new: Keys, same_redis: bool) {
        if self.clients.is_some() && new.clients.is_some() {
            self.clients = new.clients;
        }
        self.services = new.services;
        if same_redis {
            self.redis = new.redis;
        }
    }
}

/// Whether there is an `https://` URL.
fn calls_over_tls(config: &Config) -> bool {
    let hooks = |service: &Service| service.hooks.iter().flatten().any(|url| url.origin.secure);
    config.ticket.as_ref().is_some_and(|ticket| ticket.validation_url.origin.secure)
        || config.services.iter().any(|service| hooks(service))
}

struct Loader<'a> {
    files: &'a Files<'a>,
    provider: Arc<CryptoProvider>,
    errors: Vec<String>,
}

type Chain = Vec<CertificateDer<'static>>;

impl Loader<'_> {
    fn refuse<T>(&mut self, key: &str, path: &str, problem: &str) -> Option<T> {
        self.errors.push(format!("{key}: {path}: {problem}"));
        None
    }

    fn server(&mut self, pair: &KeyPair) -> Option<Arc<ServerConfig>> {
        let (chain, private) = self.pair("WS_SSL", ["cert", "key"], pair)?;
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions();
        let made = builder
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .and_then(|config| Ticketer::new().map(|ticketer| (config, ticketer)));
        match made {
            Ok((mut config, ticketer)) => {
                config.alpn_protocols = vec![HTTP_1_1.to_vec()];
                // The keys are with the client: nothing is kept here for a session that is over.
                config.ticketer = ticketer;
                Some(Arc::new(config))
            }
            Err(error) => self.unfit("WS_SSL", ["cert", "key"], pair, &error),
        }
    }

    fn client(
        &mut self,
        section: &str,
        cafile: Option<&str>,
        pair: Option<&KeyPair>,
        protocols: &[&[u8]],
    ) -> Option<Arc<ClientConfig>> {
        const NAMES: [&str; 2] = ["ssl_certfile", "ssl_keyfile"];
        let roots = self.roots(section, cafile);
        let shown = pair.map(|pair| (pair, self.pair(section, NAMES, pair)));
        let roots = Arc::new(roots?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone()).build();
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions();
        let (Ok(verifier), Ok(builder)) = (verifier, builder) else {
            // Neither can be: there are roots, and the provider has both versions.
            self.errors.push(format!("{section}: TLS cannot be set up"));
            return None;
        };
        let verifier = Arc::new(Verifier(verifier));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((pair, files)) => {
                let (chain, private) = files?;
                match builder.with_client_auth_cert(chain, private) {
                    Ok(config) => config,
                    Err(error) => return self.unfit(section, NAMES, pair, &error),
                }
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Some(Arc::new(config))
    }

    fn roots(&mut self, section: &str, cafile: Option<&str>) -> Option<RootCertStore> {
        let mut store = RootCertStore::empty();
        let Some(path) = cafile else {
            match (self.files.system_roots)() {
                Ok(roots) => drop(store.add_parsable_certificates(roots)),
                Err(problem) => self.errors.push(format!("{section}: {problem}")),
            }
            return Some(store).filter(|store| !store.is_empty());
        };
        let key = format!("{section}.ssl_cafile");
        for root in self.certificates(&key, path)? {
            if let Err(error) = store.add(root) {
                return self.refuse(&key, path, &format!("not a usable root: {error}"));
            }
        }
        Some(store)
    }

    /// Both files of a pair, so that the errors of both come out.
    fn pair(
        &mut self,
        section: &str,
        names: [&str; 2],
        pair: &KeyPair,
    ) -> Option<(Chain, PrivateKeyDer<'static>)> {
        let [cert, key] = names.map(|name| format!("{section}.{name}"));
        let chain = self.certificates(&cert, &pair.cert);
        let private = self.private_key(&key, &pair.key);
        Some((chain?, private?))
    }

    fn certificates(&mut self, key: &str, path: &str) -> Option<Chain> {
        let bytes = self.read(key, path)?;
        let chain: Result<Chain, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match chain {
            Ok(chain) if chain.is_empty() => {
                self.refuse(key, path, "no certificate in PEM is in this file")
            }
            Ok(chain) => Some(chain),
            Err(_) => self.refuse(key, path, "the PEM in this file is broken"),
        }
    }

    fn private_key(&mut self, key: &str, path: &str) -> Option<PrivateKeyDer<'static>> {
        let bytes = self.read(key, path)?;
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(private) => Some(private),
            // The details of the error may be words of the file.
            Err(_) => {
                let problem = "no private key in PEM is in this file (PKCS#8, PKCS#1 or SEC1, \
                               not encrypted)";
                self.refuse(key, path, problem)
            }
        }
    }

    fn read(&mut self, key: &str, path: &str) -> Option<Vec<u8>> {
        match (self.files.read)(path) {
            Ok(bytes) => Some(bytes),
            Err(problem) => self.refuse(key, path, &problem),
        }
    }

    /// The files are in order, and yet do not do.
    fn unfit<T>(
        &mut self,
        section: &str,
        names: [&str; 2],
        pair: &KeyPair,
        error: &Error,
    ) -> Option<T> {
        let [cert, key] = names.map(|name| format!("{section}.{name}"));
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let problem = format!("is not the key of the certificate in {}", pair.cert);
                self.refuse(&key, &pair.key, &problem)
            }
            Error::InvalidCertificate(why) => {
                self.refuse(&cert, &pair.cert, &format!("not a usable certificate: {why}"))
            }
            // The key's format or kind, which the text says.
            error => self.refuse(&key, &pair.key, &format!("not a usable key: {error}")),
        }
    }
}
