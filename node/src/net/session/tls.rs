//! TLS 1.3 with raw ed25519 public keys on both sides (RFC 8446, RFC 7250): the proof of who is at the other end.
//!
//! ```text
//! SubjectPublicKeyInfo = 30 2a 30 05 06 03 2b 65 70 03 21 00 | 32 key bytes     (RFC 8410), the only accepted form
//! ALPN                 = "keyferry/2", mandatory
//! server name          = the dialler's proof that it knows what it seeks (`keyferry_proto::dialling`)
//! key exchange         = X25519
//! ```
//! No X.509, no other version, no other key type, no resumption, no early data. Where content is sought, both sides are under keys
//! that they throw away with the connection.
//!
//! What it is not: the course of a handshake from a path to a session (`proven`), or who is let in (`proof_verifier`).

use std::{
    fmt,
    hint::black_box,
    io,
    sync::{Arc, Once},
    time::Duration,
};

use keyferry_net::time::UtcDay;
use keyferry_proto::{
    dialling::{DialProof, Sought},
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Connect, TlsAcceptor, TlsConnector, TlsStream};

use super::{
    counters::SessionCounters,
    dial_days::DialDays,
    error::{IdentityRefused, SessionError},
    key_share::{ReadyKey, ReadyX25519},
    proof_verifier::{OwnDials, ProofVerifier},
};
use crate::{
    base::{clock::ClockSkew, data_dir::ContactDays},
    net::{port::Undecided, trouble::Troubles, twins::Twins},
};

/// The protocol name in ALPN.
pub const ALPN: &[u8] = b"keyferry/2";

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// How much rustls may hold of what is to be sent: one frame of the multiplexer with room to spare.
const SEND_BUFFER: usize = 256 * 1024;

/// How long a peer may take for the TLS handshake, and again for the first messages.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many accepted connections may be in the middle of their handshake at once. One more pushes out the oldest of the
/// host that has most.
pub const MAX_HANDSHAKES: usize = 64;

/// What glibc may keep at the end of a heap is twice this.
const FREED_BLOCK: usize = 4 * 1024 * 1024;

/// The TLS identity of a node, with what all of its sessions share: limits and counters.
pub struct SessionTls {
    pub(super) identity: TlsIdentity,
    pub(super) proofs: ProofVerifier,
    pub(super) days: Arc<DialDays>,
    pub(super) handshake_timeout: Duration,
    pub(super) handshakes: Undecided,
    pub(super) counters: Arc<SessionCounters>,
    pub(super) troubles: Troubles,
    pub(super) twins: Twins,
}

impl SessionTls {
    /// Makes the TLS identity of a node from its secret.
    pub fn new(secret: &NodeSecret) -> Result<Arc<Self>, SessionError> {
        Self::with_limits(secret, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES)
    }

    pub(super) fn with_limits(
        secret: &NodeSecret,
        handshake_timeout: Duration,
        max_handshakes: usize,
    ) -> Result<Arc<Self>, SessionError> {
        keep_freed_memory();
        let provider = Arc::new(provider(cpu_has_aes()));
        gather_entropy();
        let identity = TlsIdentity::new(secret, provider).map_err(|error| SessionError::OwnKey(Arc::new(error)))?;
        let handshakes = Undecided::new(max_handshakes);
        let days = Arc::<DialDays>::default();
        Ok(Arc::new(Self {
            proofs: ProofVerifier::new(identity.node(), Arc::clone(&days)),
            days,
            identity,
            handshake_timeout,
            handshakes,
            counters: Arc::default(),
            troubles: Troubles::default(),
            twins: Twins::default(),
        }))
    }

    /// The node that this identity proves.
    pub fn node(&self) -> NodeKey {
        self.identity.node()
    }

    /// Sets what may be sought of this node by its hash alone. To be called again each day.
    pub fn set_contents(&self, contents: impl IntoIterator<Item = ContentHash>, today: UtcDay) {
        self.proofs.set_contents(contents, today);
    }

    /// Says how far this machine's clock is from those of others: dials go by theirs.
    pub fn set_skew(&self, skew: Option<ClockSkew>) {
        self.days.set_skew(skew);
    }

    /// Says which days contacts have shown. To be called once.
    pub fn set_contact_days(&self, days: ContactDays) {
        self.days.set_contacts(days);
    }

    /// Where it is told that a session may be dead.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Where it is told that another running node has proven to have this node's key.
    pub fn twins(&self) -> &Twins {
        &self.twins
    }

    /// Counts over all sessions of this node.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }
}

impl fmt::Debug for SessionTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionTls(of {})", self.node())
    }
}

/// The TLS half of a node's identity: makes the configurations for dialling and accepting.
pub(super) struct TlsIdentity {
    node: NodeKey,
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
    pub(super) own_dials: OwnDials,
}

impl TlsIdentity {
    /// Builds both configurations from the node's secret. Fails only if the TLS library refuses an ed25519 key.
    fn new(secret: &NodeSecret, provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let mut pkcs8 = zeroize::Zeroizing::new(PKCS8_PREFIX.to_vec());
        pkcs8.extend_from_slice(secret.to_bytes().as_ref());
        let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
        let node = secret.public();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&node))], key));
        let verifier = Arc::new(Verifier::new(&provider, None));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.clone())));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { node, provider, certified, server: Arc::new(server), own_dials: OwnDials::default() })
    }

    /// The node that this identity proves.
    pub(super) fn node(&self) -> NodeKey {
        self.node
    }

    /// An identity for one connection.
    fn to_throw_away(&self) -> io::Result<Self> {
        Self::new(&NodeSecret::from_bytes(&rand::random()), self.provider.clone()).map_err(io::Error::other)
    }

    /// Runs the handshake as the dialling side. That a node is the one which is sought is enforced by the verifier itself.
    pub(super) async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: T,
        sought: Sought,
        day: UtcDay,
    ) -> io::Result<(TlsStream<T>, NodeKey)> {
        let connecting = match sought {
            Sought::Node(node) => self.begin(io, (sought, day), Some(node)),
            Sought::Content(_) => self.to_throw_away()?.begin(io, (sought, day), None),
        };
        let mut stream = connecting?.await?;
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER));
        finish(TlsStream::Client(stream))
    }

    fn begin<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: T,
        (sought, day): (Sought, UtcDay),
        expect: Option<NodeKey>,
    ) -> io::Result<Connect<T>> {
        let verifier = Arc::new(Verifier::new(&self.provider, expect));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let key = ReadyKey::new().map_err(io::Error::other)?;
        let share = key.share().map_err(io::Error::other)?;
        let proof = DialProof::new(&sought, day, &share, rand::random());
        if sought == Sought::Node(self.node) {
            self.own_dials.note(proof.nonce());
        }
        let name = ServerName::try_from(proof.to_name()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(key.begin(|| connector.connect(name, io)))
    }

    /// Runs the handshake as the accepting side of one who has proven what it seeks; the peer must prove an ed25519 key, whichever it
    /// is.
    pub(super) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: T,
        sought: Sought,
    ) -> io::Result<(TlsStream<T>, NodeKey)> {
        let server = match sought {
            Sought::Node(_) => self.server.clone(),
            Sought::Content(_) => self.to_throw_away()?.server,
        };
        let mut stream = TlsAcceptor::from(server).accept(io).await?;
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER));
        finish(TlsStream::Server(stream))
    }
}

/// Makes the library seed its random numbers now, beside whatever is done next. That takes about 20 ms, once in a process; otherwise both
/// sides of the first handshake would wait for it.
pub(crate) fn gather_entropy() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // If there is no thread to be had, the first handshake waits.
        let _ = std::thread::Builder::new().name("entropy".to_owned()).spawn(|| {
            let _ = aws_lc_rs::default_provider().secure_random.fill(&mut [0; 32]);
        });
    });
}

/// Makes glibc keep a few MiB of freed memory for each heap instead of 128 KiB.
///
/// The multiplexer allocates every frame anew. By default glibc hands that memory back to the kernel at once and gets it
/// again as fresh pages; keeping it saved a quarter of the CPU time of a transfer. Freeing one large block raises both of its
/// thresholds (`mallopt(3)`, "dynamic mmap threshold"); elsewhere it does nothing.
fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(FREED_BLOCK))));
}

/// Reads the proven key off a finished handshake. rustls lets a peer pass that offers no ALPN at all, so this checks it.
fn finish<T>(stream: TlsStream<T>) -> io::Result<(TlsStream<T>, NodeKey)> {
    let (_, conn) = stream.get_ref();
    if conn.alpn_protocol() != Some(ALPN) {
        return Err(refuse(IdentityRefused::WrongProtocol));
    }
    let key = match conn.peer_certificates() {
        Some([one]) => node_of_spki(one).map_err(refuse)?,
        _ => return Err(refuse(IdentityRefused::NotEd25519)),
    };
    Ok((stream, key))
}

fn refuse(why: IdentityRefused) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// AES-128-GCM first where the CPU has it, ChaCha20-Poly1305 first elsewhere. Nothing else is offered, nor another key exchange than the
/// one that proofs are bound to.
fn provider(aes_in_hardware: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let (first, second) = match aes_in_hardware {
        true => (CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        false => (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256),
    };
    provider.cipher_suites.retain(|suite| suite.suite() == first || suite.suite() == second);
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    provider.kx_groups = vec![&ReadyX25519];
    provider
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn cpu_has_aes() -> bool {
    std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}

fn spki(node: &NodeKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), node.as_bytes()].concat()
}

fn node_of_spki(der: &[u8]) -> Result<NodeKey, IdentityRefused> {
    match der.strip_prefix(&SPKI_PREFIX).map(<[u8; 32]>::try_from) {
        Some(Ok(bytes)) => NodeKey::from_bytes(&bytes).map_err(IdentityRefused::BadKey),
        _ => Err(IdentityRefused::NotEd25519),
    }
}

/// Checks that the peer's key is an ed25519 key in its only form, and the one that was asked for. It may be our own: see [`super::proven`].
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    expect: Option<NodeKey>,
}

impl Verifier {
    fn new(provider: &CryptoProvider, expect: Option<NodeKey>) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, expect }
    }

    fn check(&self, key: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let identity = node_of_spki(key).and_then(|got| match self.expect {
            _ if !rest.is_empty() => Err(IdentityRefused::NotEd25519),
            Some(expected) if expected != got => {
                Err(IdentityRefused::OtherNode { expected: expected.into(), got: got.into() })
            }
            _ => Ok(()),
        });
        identity.map_err(|why| rustls::CertificateError::Other(OtherError(Arc::new(why))).into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

/// The answer to TLS 1.2, which is not compiled in and never gets here.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_that_the_cpu_is_good_at_comes_first_and_only_two_are_offered() {
        let order = |aes| provider(aes).cipher_suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        let (aes, chacha) = (CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!(order(true), [aes, chacha]);
        assert_eq!(order(false), [chacha, aes]);
    }

    #[test]
    fn a_public_key_round_trips_and_any_other_form_is_refused() {
        let node = NodeSecret::from_bytes(&[3; 32]).public();
        let good = spki(&node);
        assert_eq!(node_of_spki(&good), Ok(node));
        for bad in [&good[..43], &good[1..], &[good.as_slice(), &[0]].concat()[..], &[]] {
            assert_eq!(node_of_spki(bad), Err(IdentityRefused::NotEd25519));
        }
        let weak = [SPKI_PREFIX.as_slice(), &[0; 32]].concat();
        assert!(matches!(node_of_spki(&weak), Err(IdentityRefused::BadKey(_))));
    }
}
