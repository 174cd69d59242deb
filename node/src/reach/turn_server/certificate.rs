//! The X.509 certificate that the relay shows to `turns:` clients: the operator's, or one that it makes for itself.
//!
//! ```text
//! relay.crt   PEM, self-signed, made once: whoever has pinned it finds it again after a restart
//! relay.key   PEM, PKCS #8, mode 0600
//! ```
//! What it is not: the proof of a node's key, which sessions give each other inside what is relayed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{base::atomic_file::write_atomically, reach::turn_client::Pin};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// ALPN of TURN and of STUN over TLS (RFC 7443 §3).
pub(crate) const ALPN_TURN: &[u8] = b"stun.turn";
pub(crate) const ALPN_STUN: &[u8] = b"stun.nat-discovery";

const CERTIFICATE_FILE: &str = "relay.crt";
const KEY_FILE: &str = "relay.key";
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
/// The name in a certificate that the relay makes. Nobody has to believe it: clients pin the key.
const NAME: &str = "relay.keyferry.invalid";

/// Why there is no certificate. About this machine, or what its operator has given.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("the relay's certificate: {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("the relay's certificate: {} holds no usable {what} in PEM form", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The key is that of another certificate.
    #[error("the relay's certificate: the key in {} is not that of {}", key.display(), chain.display())]
    Mismatch {
        /// The file of the certificate.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The library cannot use it.
    #[error("the relay's certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// None could be made.
    #[error("no certificate could be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// A certificate chain whose key is there.
pub(super) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads the operator's files, or those in the data folder, which it makes first if they are missing.
    pub(super) fn load(given: Option<&(PathBuf, PathBuf)>, home: &Path) -> Result<Self, CertificateError> {
        if let Some((chain, key)) = given {
            return Self::read(chain, key);
        }
        let (chain, key) = (home.join(CERTIFICATE_FILE), home.join(KEY_FILE));
        if !chain.exists() || !key.exists() {
            make(&chain, &key)?;
        }
        Self::read(&chain, &key)
    }

    /// The TLS configuration of the relay.
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// What clients pin.
    pub(super) fn pin(&self) -> Option<Pin> {
        self.chain.first().and_then(|end_entity| Pin::of_certificate(end_entity))
    }

    fn read(chain_path: &Path, key_path: &Path) -> Result<Self, CertificateError> {
        let content = |path: &Path, what| CertificateError::Content { path: path.to_owned(), what };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(chain_path)?)
            .collect::<Result<_, _>>()
            .map_err(|_| content(chain_path, "certificate"))?;
        if chain.is_empty() {
            return Err(content(chain_path, "certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(key_path)?).map_err(|_| content(key_path, "private key"))?;
        let tls = server_config(chain.clone(), key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { chain: chain_path.to_owned(), key: key_path.to_owned() }
            }
            error => error.into(),
        })?;
        Ok(Self { chain, tls: Arc::new(tls) })
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_TURN.to_vec(), ALPN_STUN.to_vec()];
    Ok(config)
}

fn make(chain_path: &Path, key_path: &Path) -> Result<(), CertificateError> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(vec![NAME.to_owned()])?;
    parameters.not_after = rcgen::date_time_ymd(2099, 12, 31);
    let certificate = parameters.self_signed(&key)?;
    write(key_path, &key.serialize_pem(), SECRET_MODE)?;
    write(chain_path, &certificate.pem(), PUBLIC_MODE)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Io { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    write_atomically(path, text.as_bytes(), mode)
        .map_err(|source| CertificateError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_once_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let first = Certificate::load(None, home.path()).unwrap();
        let again = Certificate::load(None, home.path()).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert!(first.pin().is_some());
        let other = Certificate::load(None, tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(first.pin(), other.pin());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(home.path().join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, SECRET_MODE);
        }
    }

    #[test]
    fn the_operators_files_are_used_and_their_faults_named() {
        let home = tempfile::tempdir().unwrap();
        let (chain, key) = (home.path().join("a.pem"), home.path().join("b.pem"));
        make(&chain, &key).unwrap();
        let given = (chain.clone(), key.clone());
        Certificate::load(Some(&given), Path::new("/nowhere")).unwrap();
        let swapped = (key.clone(), chain.clone());
        let error = Certificate::load(Some(&swapped), Path::new("/nowhere")).err().unwrap().to_string();
        assert!(error.contains("b.pem") && error.contains("certificate"), "{error}");
        let missing = (home.path().join("none"), key);
        assert!(matches!(Certificate::load(Some(&missing), Path::new("/")), Err(CertificateError::Io { .. })));
    }
}
