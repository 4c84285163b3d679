//! Whether a server is who it has to be: rustls's own verification against the roots, with words
//! for the log that say which certificate was refused and why.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::der;

/// A verifier that names what it refuses.
#[derive(Debug)]
pub struct Verifier(pub Arc<WebPkiServerVerifier>);

/// A certificate that was refused.
#[derive(Debug)]
pub struct Distrusted {
    subject: String,
    issuer: String,
    why: CertificateError,
}

impl fmt::Display for Distrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Distrusted { subject, issuer, why } = self;
        write!(f, "the certificate of {subject}, issued by {issuer}, is refused: ")?;
        match why {
            CertificateError::UnknownIssuer => {
                f.write_str("no root that is trusted vouches for it")
            }
            CertificateError::Expired => f.write_str("expired"),
            CertificateError::ExpiredContext { time, not_after } => {
                let seconds = time.as_secs().saturating_sub(not_after.as_secs());
                write!(f, "expired {} hours ago", seconds / 3_600)
            }
            CertificateError::BadSignature => {
                f.write_str("it is not signed by the issuer of that name that is trusted")
            }
            why => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for Distrusted {}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        result.map_err(|error| match error {
            Error::InvalidCertificate(why) => {
                let (subject, issuer) = der::subject_and_issuer(end_entity);
                let distrusted = Distrusted { subject, issuer, why };
                CertificateError::Other(OtherError(Arc::new(distrusted))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
