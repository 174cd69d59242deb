//! Sessions over real sockets on loopback, with honest and hostile peers.

use std::{
    future::poll_fn,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_proto::{
    dialling::{DialProof, KeyShare},
    hash::ContentHash,
    identity::NodeSecret,
    message::{ContentReply, Goodbye, Message, Refusal, Request},
};
use rustls::{
    ClientConfig, ServerConfig,
    client::AlwaysResolvesClientRawPublicKeys,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    server::{AlwaysResolvesServerRawPublicKeys, ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{
    key_share::{ReadyKey, ReadyX25519},
    *,
};
use crate::{
    base::clock,
    net::{
        path::{AnyPort, PathKind, PathReport, PathScope},
        twins::TwinEncounter,
    },
};

const GRACE: Duration = Duration::from_secs(30);

fn secret(number: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[number; 32])
}

fn node(number: u8) -> Sought {
    Sought::Node(secret(number).public())
}

fn tls(number: u8) -> Arc<SessionTls> {
    SessionTls::with_limits(&secret(number), GRACE, MAX_HANDSHAKES).expect("a TLS identity")
}

fn policy() -> AddressPolicy {
    AddressPolicy::for_listeners(&[]).expect("the interfaces")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

async fn accept_one(listener: &TcpListener, tls: &Arc<SessionTls>) -> Result<(Session, InboundStreams), SessionError> {
    let (stream, remote) = listener.accept().await.expect("a connection");
    Session::accept(Path { stream: stream.into(), report: PathReport::accepted(remote, &policy()) }, tls).await
}

async fn path_to(addr: SocketAddr) -> Path {
    let stream = TcpStream::connect(addr).await.expect("connected");
    Path { stream: stream.into(), report: PathReport::dialled(addr, &policy(), Duration::ZERO) }
}

/// Node 1 accepts, node 2 dials.
async fn pair() -> ((Session, InboundStreams), (Session, InboundStreams)) {
    let (listener, addr) = listen().await;
    let (ours, theirs) = (tls(1), tls(2));
    let dial = async { Session::dial(path_to(addr).await, &theirs, node(1)).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    (accepted.expect("accepted"), dialled.expect("dialled"))
}

/// Lets a raw client do its worst to an accepting node.
async fn accept_from<F: Future<Output = ()>>(
    tls: &Arc<SessionTls>,
    client: impl FnOnce(TcpStream) -> F,
) -> Result<(Session, InboundStreams), SessionError> {
    let (listener, addr) = listen().await;
    let client = async { client(TcpStream::connect(addr).await.expect("connected")).await };
    let (accepted, ()) = tokio::join!(accept_one(&listener, tls), client);
    accepted
}

#[tokio::test]
async fn both_sides_learn_the_key_of_the_other_and_how_they_met() {
    let ((accepted, _streams), (dialled, _more)) = pair().await;
    assert_eq!((accepted.peer(), dialled.peer()), (secret(2).public(), secret(1).public()));
    assert_eq!((accepted.path().kind, dialled.path().kind), (PathKind::Accepted, PathKind::Dialled));
    assert_eq!(dialled.path().scope, PathScope::ThisMachine);
    assert!(dialled.hello().await.expect("a hello").agent.starts_with("keyferry/"));
    assert!(dialled.traffic().sent() > 0 && dialled.traffic().received() > 0);
}

#[tokio::test]
async fn whoever_seeks_another_node_learns_nothing_but_that_somebody_is_there() {
    let (listener, addr) = listen().await;
    let (ours, theirs) = (tls(1), tls(2));
    let dial = async { Session::dial(path_to(addr).await, &theirs, node(3)).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    assert!(matches!(dialled, Err(SessionError::NotThere)), "{dialled:?}");
    assert!(matches!(accepted, Err(SessionError::Unproven)), "{accepted:?}");
    assert_eq!(ours.counters().unproven.get(), 1);
}

#[tokio::test]
async fn content_is_found_by_its_hash_alone_and_neither_side_shows_who_it_is() {
    let (listener, addr) = listen().await;
    let (ours, theirs, film) = (tls(1), tls(2), ContentHash::of(b"film"));
    ours.set_contents([film], clock::now().day());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let dial = async { Session::dial(path_to(addr).await, &theirs, Sought::Content(film)).await };
        let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
        let ((accepted, _streams), (dialled, _more)) = (accepted.expect("accepted"), dialled.expect("dialled"));
        assert_eq!((accepted.sought(), dialled.sought()), (Sought::Content(film), Sought::Content(film)));
        seen.extend([accepted.peer(), dialled.peer()]);
    }
    assert!(!seen.contains(&secret(1).public()) && !seen.contains(&secret(2).public()));
    let different: std::collections::HashSet<_> = seen.into_iter().collect();
    assert_eq!(different.len(), 4, "keys are thrown away with the session");

    let dial = async { Session::dial(path_to(addr).await, &theirs, Sought::Content(ContentHash::of(b"song"))).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    assert!(matches!((accepted, dialled), (Err(SessionError::Unproven), Err(SessionError::NotThere))));
}

/// All that a node answers to these first bytes.
async fn answer_to(tls: &Arc<SessionTls>, first: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let accepted = accept_from(tls, |mut stream| {
        let answer = &mut answer;
        async move {
            stream.write_all(first).await.expect("written");
            let _ = stream.read_to_end(answer).await;
        }
    });
    assert!(matches!(accepted.await, Err(SessionError::Unproven)));
    answer
}

/// A ClientHello of a session, with this name of a server.
fn hello_with(name: String) -> Vec<u8> {
    let mut config = client_config(secret_key(2));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from(name).expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

#[tokio::test]
async fn without_a_proof_or_with_one_that_is_wrong_or_was_used_or_is_anothers_there_is_no_answer() {
    let (ours, today) = (tls(1), clock::now().day());
    let proof = |sought, day| DialProof::new(&sought, day, &KeyShare([7; 32]), [7; 16]).to_name();
    let wrong = [
        "keyferry.invalid".to_owned(),
        proof(node(3), today),
        proof(Sought::Content(ContentHash::of(b"film")), today),
        // The right one, but of another key share.
        proof(node(1), today),
    ];
    for name in wrong {
        assert_eq!(answer_to(&ours, &hello_with(name.clone())).await, b"", "{name}");
    }

    // Recorded, and sent once more.
    let dialling = EarlyDial::begin(&tls(2), node(1)).expect("a ClientHello");
    let recorded = dialling.first_words().to_vec();
    let once = accept_from(&ours, |mut stream| {
        let recorded = recorded.clone();
        async move {
            stream.write_all(&recorded).await.expect("written");
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer[..3], [0x16, 3, 3], "a ServerHello");
        }
    });
    assert!(once.await.is_err(), "whoever has recorded it cannot go on");
    assert_eq!(answer_to(&ours, &recorded).await, b"");
    assert_eq!(ours.counters().unproven.get(), 5);
}

#[tokio::test]
async fn a_node_refuses_itself_on_both_sides() {
    let (listener, addr) = listen().await;
    let ours = tls(1);
    let dial = async { Session::dial(path_to(addr).await, &ours, node(1)).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    assert!(matches!(dialled, Err(SessionError::NotThere)), "{dialled:?}");
    assert!(matches!(accepted, Err(SessionError::Identity(IdentityRefused::Ourselves))), "{accepted:?}");
    assert_eq!(ours.twins().meeting(Instant::now()), None);
}

#[tokio::test]
async fn two_nodes_with_one_key_make_no_session_and_both_are_told() {
    let (listener, addr) = listen().await;
    let (ours, theirs) = (tls(1), tls(1));
    let dial = async { Session::dial(path_to(addr).await, &theirs, node(1)).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    for ended in [accepted, dialled] {
        assert!(matches!(ended, Err(SessionError::Identity(IdentityRefused::Twin))), "{ended:?}");
    }
    let by = |tls: &SessionTls| tls.twins().meeting(Instant::now()).map(|meeting| meeting.by);
    assert_eq!(by(&ours), Some(TwinEncounter::DialledFrom(addr.ip())));
    assert_eq!(by(&theirs), Some(TwinEncounter::Dialled(addr)));
}

#[tokio::test]
async fn whoever_shows_this_nodes_key_and_does_not_have_its_secret_is_no_twin() {
    let ours = tls(1);
    let other = secret_key(2);
    let shown = Arc::new(CertifiedKey::new(secret_key(1).cert.clone(), other.key.clone()));
    let posing = |stream| async move { drop(tls_client(stream, shown, |config| config).await) };
    let accepted = accept_from(&ours, posing).await;
    assert!(matches!(accepted, Err(SessionError::Tls(_))), "{accepted:?}");
    assert_eq!(ours.twins().meeting(Instant::now()), None);
}

fn pkcs8_of_ed25519(number: u8) -> Vec<u8> {
    let prefix = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    [&prefix[..], &[number; 32]].concat()
}

fn secret_key(number: u8) -> Arc<CertifiedKey> {
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8_of_ed25519(number))).expect("a key");
    let spki = key.public_key().expect("a public key").to_vec();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// A P-256 key with its raw public key.
fn ecdsa_key() -> Arc<CertifiedKey> {
    const PKCS8: &str = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420566cdb7b0bad901225a714a12587\
        a767582a1a82d2e79ac1e33298c094efee4ea14403420004be759de83a9c8f5a5267be352d4e56cff915d7821053edd1f66422ab36248ada\
        a5356fe6ef7cee22869f678b69997d89c6eb53d31144d69a60b3936a3ec4d227";
    let der = data_encoding::HEXLOWER.decode(PKCS8.as_bytes()).expect("hex digits");
    let key = aws_lc_rs::sign::any_ecdsa_type(&PrivatePkcs8KeyDer::from(der).into()).expect("a key");
    let spki = key.public_key().expect("a public key").to_vec();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// Trusts everybody: the eyes of a hostile peer.
#[derive(Debug)]
struct Anyone {
    raw: bool,
}

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519, rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

fn client_config(key: Arc<CertifiedKey>) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![&ReadyX25519];
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone { raw: true }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
}

/// A client that seeks node 1, shows `key` and accepts any server.
async fn tls_client(
    stream: TcpStream,
    key: Arc<CertifiedKey>,
    change: impl FnOnce(ClientConfig) -> ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = client_config(key);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let ready = ReadyKey::new().expect("a key");
    let share = ready.share().expect("its public half");
    let proof = DialProof::new(&node(1), clock::now().day(), &share, rand::random());
    let name = ServerName::try_from(proof.to_name()).expect("a name");
    let connector = TlsConnector::from(Arc::new(change(config)));
    let mut stream = ready.begin(|| connector.connect(name, stream)).await?;
    // The server's verdict comes after the client's part is over.
    let _ = tokio::time::timeout(GRACE, stream.read(&mut [0; 1])).await;
    Ok(stream)
}

#[tokio::test]
async fn a_client_with_a_key_of_another_kind_is_refused() {
    let ours = tls(1);
    let accepted =
        accept_from(&ours, |stream| async move { drop(tls_client(stream, ecdsa_key(), |config| config).await) }).await;
    assert!(matches!(accepted, Err(SessionError::Identity(_) | SessionError::Tls(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_client_that_wants_certificates_or_shows_no_key_or_another_protocol_is_refused() {
    #[derive(Debug)]
    struct NoKey;
    impl rustls::client::ResolvesClientCert for NoKey {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn only_raw_public_keys(&self) -> bool {
            true
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let x509 = |mut config: ClientConfig| {
        config.dangerous().set_certificate_verifier(Arc::new(Anyone { raw: false }));
        config
    };
    let no_key = |mut config: ClientConfig| {
        config.client_auth_cert_resolver = Arc::new(NoKey);
        config
    };
    let no_alpn = |mut config: ClientConfig| {
        config.alpn_protocols.clear();
        config
    };
    let other_alpn = |mut config: ClientConfig| {
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    };
    type Change = fn(ClientConfig) -> ClientConfig;
    let changes: [(&str, Change); 4] =
        [("x509", x509), ("no key", no_key), ("no alpn", no_alpn), ("other alpn", other_alpn)];
    for (what, change) in changes {
        let client = |stream| async move { drop(tls_client(stream, secret_key(2), change).await) };
        let accepted = accept_from(&tls(1), client).await;
        assert!(matches!(accepted, Err(SessionError::Identity(_) | SessionError::Tls(_))), "{what}: {accepted:?}");
    }
}

#[derive(Debug)]
struct WithCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for WithCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_or_a_key_of_another_kind_or_another_protocol_is_refused() {
    let raw = |key| Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)) as Arc<dyn ResolvesServerCert>;
    let servers: [(&str, Arc<dyn ResolvesServerCert>, &[u8]); 5] = [
        ("another node", raw(secret_key(3)), ALPN),
        ("certificate", Arc::new(WithCertificate(secret_key(1))), ALPN),
        ("P-256", raw(ecdsa_key()), ALPN),
        ("other protocol", raw(secret_key(1)), b"h2"),
        ("no protocol", raw(secret_key(1)), b""),
    ];
    for (what, resolver, alpn) in servers {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = [alpn.to_vec()].into_iter().filter(|name| !name.is_empty()).collect();
        let (listener, addr) = listen().await;
        let server = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            drop(TlsAcceptor::from(Arc::new(config)).accept(stream).await);
        };
        let ours = tls(2);
        let dial = async { Session::dial(path_to(addr).await, &ours, node(1)).await };
        let ((), dialled) = tokio::join!(server, dial);
        assert!(matches!(dialled, Err(SessionError::Identity(_) | SessionError::Tls(_))), "{what}: {dialled:?}");
    }
}

#[tokio::test]
async fn tls_1_2_is_not_answered() {
    // Version 3.3, a random, no session, one suite of TLS 1.2, no compression, no extensions.
    let hello = [&[0x03, 0x03][..], &[0x55; 32], &[0, 0, 2, 0xc0, 0x2f, 1, 0]].concat();
    let handshake = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    let record = [&[0x16, 0x03, 0x01, 0, handshake.len() as u8][..], &handshake].concat();
    assert_eq!(answer_to(&tls(1), &record).await, b"");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_dropped_in_time_and_frees_its_place() {
    let impatient = SessionTls::with_limits(&secret(1), Duration::from_millis(50), 1).expect("a TLS identity");
    for _ in 0..2 {
        let silent = |mut stream: TcpStream| async move { drop(stream.read(&mut [0; 1]).await) };
        let accepted = accept_from(&impatient, silent).await;
        assert!(matches!(accepted, Err(SessionError::HandshakeTimeout { .. })), "{accepted:?}");
    }
    let (listener, addr) = listen().await;
    let dialled = Session::dial(path_to(addr).await, &impatient, node(2)).await;
    assert!(matches!(dialled, Err(SessionError::HandshakeTimeout { .. })), "{dialled:?}");
    drop(listener);
}

#[tokio::test]
async fn beyond_the_limit_an_idle_handshake_gives_way_to_a_new_one() {
    let narrow = SessionTls::with_limits(&secret(1), GRACE, 1).expect("a TLS identity");
    let (listener, addr) = listen().await;
    let _silent = TcpStream::connect(addr).await.expect("connected");
    let idle = accept_one(&listener, &narrow);
    tokio::pin!(idle);
    assert!(timeout(Duration::from_millis(50), &mut idle).await.is_err(), "a silent peer was taken");

    let other = tls(2);
    let dial = async { Session::dial(path_to(addr).await, &other, node(1)).await };
    let (idle, accepted, dialled) = tokio::join!(idle, accept_one(&listener, &narrow), dial);

    assert!(matches!(idle, Err(SessionError::Busy { .. })), "{idle:?}");
    assert!(accepted.is_ok() && dialled.is_ok(), "{accepted:?}, {dialled:?}");
    assert_eq!(narrow.counters().too_many_handshakes.get(), 1);
}

#[tokio::test]
async fn garbage_after_the_handshake_makes_no_session() {
    let client = |stream| async move {
        let (mut stream, _) = tls(2).identity.connect(stream, node(1), clock::now().day()).await.expect("a handshake");
        let _ = stream.write_all(&[0xee; 4096]).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let ours = tls(1);
    let accepted = accept_from(&ours, client).await;
    assert!(matches!(accepted, Err(SessionError::Ended(_) | SessionError::Protocol(_))), "{accepted:?}");
}

#[tokio::test]
async fn garbage_outside_tls_ends_a_session_that_stands() {
    let (listener, addr) = listen().await;
    let (proxy, proxy_addr) = listen().await;
    // The man in the middle passes everything on, until it is told to put in bytes of its own.
    let (inject, injected) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.expect("a connection");
        let mut server = TcpStream::connect(addr).await.expect("connected");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            _ = injected => drop(server.write_all(&[0x17, 3, 3, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8]).await),
        }
        drop(server.write_all(&[0; 64]).await);
        std::future::pending::<()>().await;
    });
    let (ours, theirs) = (tls(1), tls(2));
    let dial = async { Session::dial(path_to(proxy_addr).await, &theirs, node(1)).await };
    let (accepted, dialled) = tokio::join!(accept_one(&listener, &ours), dial);
    let ((session, _streams), _dialled) = (accepted.expect("accepted"), dialled.expect("dialled"));
    inject.send(()).expect("the proxy runs");
    assert!(matches!(session.closed().await, SessionEnd::Broken(_)));
}

#[tokio::test]
async fn a_liar_at_the_first_address_does_not_win_the_race() {
    let (liar, liar_addr) = listen().await;
    let (silent, silent_addr) = listen().await;
    let (honest, honest_addr) = listen().await;
    let liar_tls = tls(7);
    tokio::spawn(async move { drop(accept_one(&liar, &liar_tls).await) });
    let honest_tls = tls(1);
    let honest = tokio::spawn(async move { accept_one(&honest, &honest_tls).await });
    let admitted = policy().admit(&[], &[liar_addr, silent_addr, honest_addr]);
    let (session, _streams) =
        Session::connect(&AnyPort, &admitted, &policy(), &tls(2), node(1)).await.expect("the honest one is found");
    assert_eq!((session.peer(), session.path().remote), (secret(1).public(), honest_addr));
    assert!(session.path().took > Duration::ZERO);
    honest.await.expect("no panic").expect("accepted");
    drop(silent);
}

#[tokio::test]
async fn if_only_others_answer_the_error_tells_where_they_are() {
    let (liar, liar_addr) = listen().await;
    let liar_tls = tls(7);
    tokio::spawn(async move { drop(accept_one(&liar, &liar_tls).await) });
    let (gone, gone_addr) = listen().await;
    drop(gone);
    let admitted = policy().admit(&[], &[liar_addr, gone_addr]);
    let error = Session::connect(&AnyPort, &admitted, &policy(), &tls(2), node(1)).await.expect_err("nobody");
    assert_eq!(error.not_there(), Some(liar_addr));
    assert!(matches!(&error, SessionError::AllFailed { failed, .. } if failed.len() == 2), "{error}");

    let nothing = Session::connect(&AnyPort, &Admitted::default(), &policy(), &tls(2), node(1)).await;
    assert!(matches!(nothing, Err(SessionError::NothingToDial { .. })), "{nothing:?}");
}

#[tokio::test]
async fn many_streams_carry_data_both_ways_and_close_each_direction_on_its_own() {
    const LEN: usize = 300_000;
    let ((accepted, mut inbound), (dialled, _more)) = pair().await;
    tokio::spawn(async move {
        while let Some(mut stream) = inbound.next().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("read to the end");
                stream.write_all(&all).await.expect("written");
                stream.shutdown().await.expect("closed");
            });
        }
    });
    // More than may be open at once: the later ones wait for a place.
    let echoes = (0..40u8).map(|number| {
        let session = dialled.clone();
        async move {
            let mut stream = session.open().await.expect("a stream");
            stream.write_all(&vec![number; LEN]).await.expect("written");
            stream.shutdown().await.expect("closed");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("read to the end");
            assert!(back.len() == LEN && back.iter().all(|byte| *byte == number));
        }
    });
    tokio::time::timeout(GRACE, futures::future::join_all(echoes)).await.expect("in time");
    assert!(accepted.end().is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_unfinished_shows_as_a_reset() {
    let ((_accepted, mut inbound), (dialled, _more)) = pair().await;
    let mut stream = dialled.open().await.expect("a stream");
    stream.write_all(b"half").await.expect("written");
    let mut other = inbound.next().await.expect("the stream");
    other.read_exact(&mut [0; 4]).await.expect("what was written");
    drop(stream);
    assert_eq!(other.read(&mut [0; 4]).await.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_was_written_before_the_close_arrives_and_the_reason_too() {
    let ((accepted, mut inbound), (dialled, _more)) = pair().await;
    let mut stream = dialled.open().await.expect("a stream");
    write_message(&mut stream, &ContentReply::Refused(Refusal::Busy)).await.expect("written");
    stream.shutdown().await.expect("closed");
    dialled.close_with(Goodbye::Stopping);
    assert!(matches!(dialled.closed().await, SessionEnd::ClosedHere));
    assert!(matches!(dialled.open().await, Err(SessionError::Ended(_))));
    let mut other = inbound.next().await.expect("the stream");
    let message = read_message(&mut other).await.expect("a message");
    assert_eq!(message, Some(ContentReply::Refused(Refusal::Busy)));
    assert!(matches!(accepted.closed().await, SessionEnd::ClosedByPeer { reason: Some(Goodbye::Stopping) }));
    assert!(inbound.next().await.is_none());
}

#[tokio::test]
async fn the_session_ends_with_its_last_handle() {
    let ((accepted, _streams), (dialled, _more)) = pair().await;
    let (clone, ended) = (dialled.clone(), dialled.closed());
    drop(dialled);
    assert!(clone.end().is_none());
    drop(clone);
    assert!(matches!(ended.await, SessionEnd::ClosedHere));
    assert!(matches!(accepted.closed().await, SessionEnd::ClosedByPeer { reason: Some(Goodbye::Finished) }));
}

/// A peer without manners: the multiplexer with other limits, and streams as it pleases.
async fn hostile_streams(stream: TcpStream, count: usize) -> Vec<usize> {
    let (stream, _) = tls(2).identity.connect(stream, node(1), clock::now().day()).await.expect("a handshake");
    let mut config = yamux::Config::default();
    config.set_max_num_streams(512);
    let mut conn = yamux::Connection::new(stream.compat(), config, yamux::Mode::Client);
    let mut streams = Vec::new();
    for _ in 0..=count {
        streams.push(poll_fn(|cx| conn.poll_new_outbound(cx)).await.expect("a stream"));
    }
    let driver =
        async move { while poll_fn(|cx| conn.poll_next_inbound(cx)).await.is_some_and(|next| next.is_ok()) {} };
    let flood = async move {
        use futures::AsyncWriteExt;
        let mut control = streams.remove(0);
        control.write_all(&Request::Control(control::our_hello()).to_frame()).await.expect("a hello");
        let floods = streams.iter_mut().map(|stream| async move {
            let mut written = 0;
            let block = [0; 16 * 1024];
            while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(500), stream.write(&block)).await {
                written += n;
                if written > 4 * RECEIVE_MEMORY {
                    break;
                }
            }
            written
        });
        futures::future::join_all(floods).await
    };
    tokio::select! {
        written = flood => written,
        () = driver => vec![],
    }
}

#[tokio::test]
async fn a_peer_that_opens_many_streams_and_floods_them_cannot_fill_the_memory() {
    let (listener, addr) = listen().await;
    let ours = tls(1);
    let (release, released) = oneshot::channel::<()>();
    let client = async {
        let written = hostile_streams(TcpStream::connect(addr).await.expect("connected"), 30).await;
        drop(release);
        written
    };
    let server = async {
        let (session, mut streams) = accept_one(&listener, &ours).await.expect("accepted");
        // Nobody takes or reads a stream while the peer floods.
        let _ = released.await;
        let mut taken = 0;
        while streams.next().await.is_some() {
            taken += 1;
        }
        drop(session);
        taken
    };
    let (taken, written) = tokio::join!(server, client);
    // The control stream has one place.
    assert_eq!(taken, MAX_INBOUND_STREAMS - 1);
    let window = 256 * 1024;
    let held = written.iter().filter(|written| **written > 0).count();
    assert!(held >= MAX_INBOUND_STREAMS - 1 && written.iter().all(|written| *written <= window), "{written:?}");
    assert!(written.iter().sum::<usize>() <= RECEIVE_MEMORY);
    assert!(ours.counters().streams_refused.get() >= 7);
}
