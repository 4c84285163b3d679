//! Whether a server is who it has to be: rustls's own verification against the roots, with words
//! for the log that say which certificate was refused and why.

use std::fmt;
use std::iter;
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
            CertificateError::NotValidYetContext { time, not_before } => {
                let seconds = not_before.as_secs().saturating_sub(time.as_secs());
                write!(f, "not valid for another {} hours", seconds.div_ceil(3_600))
            }
            CertificateError::BadSignature => {
                f.write_str("it is not signed by the issuer of that name that is trusted")
            }
            CertificateError::Other(why) => match why.to_string().as_str() {
                "CaUsedAsEndEntity" => {
                    f.write_str("it is an authority's own (CA:TRUE), not a server's")
                }
                why => f.write_str(why),
            },
            why => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for Distrusted {}

/// Which certificate was refused: the server's, unless one above it is out of date.
fn refused<'a>(
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    why: &CertificateError,
    now: UnixTime,
) -> &'a CertificateDer<'a> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let now = now.as_secs().checked_mul(1_000_000).and_then(|micros| micros.try_into().ok());
    let is_off = |certificate: &&CertificateDer<'_>| match (why, der::validity(certificate)) {
        (Expired | ExpiredContext { .. }, Some((_, last))) => now > Some(last.0),
        (NotValidYet | NotValidYetContext { .. }, Some((first, _))) => now < Some(first.0),
        _ => false,
    };
    iter::once(end_entity).chain(intermediates).find(is_off).unwrap_or(end_entity)
}

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
                let refused = refused(end_entity, intermediates, &why, now);
                let (subject, issuer) = der::subject_and_issuer(refused);
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
