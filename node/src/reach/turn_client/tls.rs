//! TLS to `turns:` servers (RFC 7065 §3.1, RFC 8656 §3.1; ALPN of RFC 7443), and how their certificates are checked.
//!
//! What it is not: the TLS between nodes, which runs inside and proves the peer.

use std::{
    fmt, io,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

/// RFC 7443 §5.
const ALPN: &[u8] = b"stun.turn";
/// Bytes of a SHA-256 hash.
const PIN_LEN: usize = 32;

/// How to check the certificate of a `turns:` server: against what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// The root certificates of the system.
    #[default]
    System,
    /// The root certificates of the system, and those in a PEM file.
    SystemAnd(PathBuf),
    /// This key, whatever the certificate says: for servers of friends that no authority knows.
    Pinned(Pin),
}

/// The SHA-256 hash of a certificate's SubjectPublicKeyInfo (as in RFC 7469 §2.4); written as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; PIN_LEN]);

/// Why there is nothing to check a server's certificate against. The fault of the user, or of the system's setup.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// No hash of a key.
    #[error("a pinned key is the SHA-256 hash of the server's public key in {} hex digits", PIN_LEN * 2)]
    Pin,
    /// The system has no root certificates.
    #[error(
        "this system has no root certificates (Debian's package ca-certificates); name a file of them, or pin the server's key"
    )]
    NoSystemRoots,
    /// The file of certificates.
    #[error("the certificates in {} could not be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS could not be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl Pin {
    /// Takes a pin as somebody has told it: the SHA-256 hash of a SubjectPublicKeyInfo.
    pub const fn from_bytes(bytes: [u8; PIN_LEN]) -> Self {
        Self(bytes)
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; PIN_LEN] {
        &self.0
    }

    /// The pin of a SubjectPublicKeyInfo in DER.
    pub fn of_key(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The pin of a certificate in DER; `None` if it is none.
    pub fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let certificate = CertificateDer::from(certificate);
        let parsed = ParsedCertificate::try_from(&certificate).ok()?;
        Some(Self::of_key(&parsed.subject_public_key_info()))
    }
}

impl FromStr for Pin {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| TrustError::Pin)?;
        bytes.try_into().map(Self).map_err(|_| TrustError::Pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

/// The configuration for a server. TLS 1.2 is for servers in use that have no other.
pub(super) fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::SystemAnd(path) => builder.with_root_certificates(roots_and(path)?),
        Trust::Pinned(pin) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinVerifier { pin: *pin, algorithms }))
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Read once: that takes some milliseconds.
fn system_roots() -> Result<RootCertStore, TrustError> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "root certificates of the system");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    });
    if roots.is_empty() { Err(TrustError::NoSystemRoots) } else { Ok(roots.clone()) }
}

fn roots_and(path: &std::path::Path) -> Result<RootCertStore, TrustError> {
    let failed = |error: io::Error| TrustError::File { path: path.to_owned(), source: Arc::new(error) };
    let mut roots = system_roots().unwrap_or_else(|_| RootCertStore::empty());
    let mut added = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(io::Error::other(error)))? {
        let certificate = certificate.map_err(|error| failed(io::Error::other(error)))?;
        roots.add(certificate).map_err(|error| failed(io::Error::other(error)))?;
        added += 1;
    }
    if added == 0 { Err(failed(io::Error::other("there is no certificate in it"))) } else { Ok(roots) }
}

/// Takes a server that has the private key of the pinned public key, whatever name and dates its certificate has.
#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match Pin::of_certificate(certificate) {
            Some(pin) if pin == self.pin => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_64_hex_digits() {
        let pin = Pin::of_key(b"a key");
        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        assert_eq!(pin.to_string().to_uppercase().parse::<Pin>().unwrap(), pin);
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = client_config(&Trust::SystemAnd(file.path().to_owned())).unwrap_err().to_string();
        assert!(error.contains("no certificate in it"), "{error}");
        assert!(client_config(&Trust::SystemAnd("/nowhere".into())).is_err());
    }
}
