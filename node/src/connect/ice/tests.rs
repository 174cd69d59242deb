use std::sync::Arc;

use keyferry_ice::{Candidate, CandidateKind, Config, LocalCandidate, Mapping, PairState, Role, Strategy, TcpType};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
};

use super::*;

mod relayed;

use crate::{
    connect::demux::stun::Front,
    net::{
        path::{AddressPolicy, Path, PathKind},
        port::Port,
    },
    reach::gather::Gathered,
};

/// A node, as far as ICE needs one.
struct Side {
    port: Port,
    ice: Arc<IceHost>,
    gathered: watch::Sender<Gathered>,
    _front: Front,
}

impl Side {
    async fn on(listen: &[SocketAddr], gathered: Gathered) -> Self {
        let (port, incoming) = Port::bind(listen).await.unwrap();
        let (gathered, receiver) = watch::channel(gathered);
        let ice = IceHost::new(receiver, Config::default());
        let front = Front::spawn(incoming.stun, Arc::clone(&ice), true, None, &port);
        Self { port, ice, gathered, _front: front }
    }

    /// On loopback, with all that has been gathered there.
    async fn on_loopback() -> Self {
        let side = Self::on(&["127.0.0.1:0".parse().unwrap()], Gathered::default()).await;
        side.gathered.send_replace(gathered(&host(side.addr())));
        side
    }

    fn addr(&self) -> SocketAddr {
        self.port.local_addrs()[0]
    }

    fn policy(&self) -> AddressPolicy {
        AddressPolicy::for_listeners(self.port.local_addrs()).unwrap()
    }
}

fn gathered(candidates: &[LocalCandidate]) -> Gathered {
    Gathered {
        candidates: candidates.to_vec(),
        mapping: Mapping::EndpointIndependent,
        complete: true,
        ..Gathered::default()
    }
}

fn local(kind: CandidateKind, tcp_type: TcpType, addr: SocketAddr, base: SocketAddr) -> LocalCandidate {
    LocalCandidate { candidate: Candidate::new(kind, tcp_type, addr, 1), base }
}

/// An address that this machine has, as candidates.
fn host(addr: SocketAddr) -> Vec<LocalCandidate> {
    [(TcpType::Active, 9), (TcpType::Passive, addr.port())]
        .map(|(tcp_type, port)| local(CandidateKind::Host, tcp_type, SocketAddr::new(addr.ip(), port), addr))
        .to_vec()
}

/// Two ends of a call, without anything between them.
fn dialogues(one: Description, other: Description) -> (Dialogue, Dialogue) {
    let (to_other, from_one) = mpsc::channel(32);
    let (to_one, from_other) = mpsc::channel(32);
    let round_trip = || watch::channel(Some(Duration::from_millis(5))).1;
    (
        Dialogue { remote: other, round_trip: round_trip(), outgoing: to_other, incoming: from_other },
        Dialogue { remote: one, round_trip: round_trip(), outgoing: to_one, incoming: from_one },
    )
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// Lets two sides negotiate, each with the given policy.
async fn negotiate(
    (caller, caller_policy): (&Side, AddressPolicy),
    (callee, callee_policy): (&Side, AddressPolicy),
) -> (Result<Path, IceError>, Result<Path, IceError>) {
    let controlling = caller.ice.begin(Role::Controlling).unwrap();
    let controlled = callee.ice.begin(Role::Controlled).unwrap();
    let (to_callee, to_caller) = dialogues(controlling.description(), controlled.description());
    in_time(async {
        tokio::join!(controlling.run(to_callee, &caller_policy), controlled.run(to_caller, &callee_policy))
    })
    .await
}

/// Sends raw bytes both ways over what both sides take for one connection.
async fn assert_connected(mut one: Path, mut other: Path) {
    one.stream.write_all(b"from one").await.unwrap();
    other.stream.write_all(b"from other").await.unwrap();
    let (mut at_other, mut at_one) = ([0; 8], [0; 10]);
    in_time(other.stream.read_exact(&mut at_other)).await.unwrap();
    in_time(one.stream.read_exact(&mut at_one)).await.unwrap();
    assert_eq!((&at_other, &at_one), (b"from one", b"from other"));
}

#[tokio::test]
async fn two_hosts_agree_on_one_connection_and_get_it_raw() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let (one, other) = negotiate((&caller, caller.policy()), (&callee, callee.policy())).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.stream.tcp().local_addr().unwrap(), other.stream.tcp().peer_addr().unwrap());
    let strategies = [one.report.kind, other.report.kind];
    let connected = PathKind::Punched(Strategy::Connected);
    let accepted = PathKind::Punched(Strategy::Accepted);
    assert!(strategies == [connected, accepted] || strategies == [accepted, connected], "{strategies:?}");
    assert_connected(one, other).await;
    assert_eq!(caller.ice.counters().found.get(), 1);
}

#[tokio::test]
async fn raw_bytes_that_follow_the_last_check_at_once_are_not_lost() {
    for _ in 0..20 {
        let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
        let controlling = caller.ice.begin(Role::Controlling).unwrap();
        let controlled = callee.ice.begin(Role::Controlled).unwrap();
        let (to_callee, to_caller) = dialogues(controlling.description(), controlled.description());
        let (caller_policy, callee_policy) = (caller.policy(), callee.policy());
        let call = async {
            let mut path = controlling.run(to_callee, &caller_policy).await.unwrap();
            path.stream.write_all(b"client hello").await.unwrap();
            path
        };
        let (_caller_path, mut path) =
            in_time(async { tokio::join!(call, controlled.run(to_caller, &callee_policy)) }).await;
        let mut got = [0; 12];
        in_time(path.as_mut().unwrap().stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"client hello");
    }
}

#[tokio::test]
async fn checks_that_arrive_byte_by_byte_lead_to_a_path_all_the_same() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let crumbler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind_crumbler = crumbler.local_addr().unwrap();
    let target = callee.addr();
    let crumble = tokio::spawn(async move {
        let (near, _) = crumbler.accept().await.unwrap();
        let far = TcpStream::connect(target).await.unwrap();
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        tokio::join!(byte_by_byte(near_read, far_write), byte_by_byte(far_read, near_write));
    });
    callee.gathered.send_replace(gathered(&[local(
        CandidateKind::Host,
        TcpType::Passive,
        behind_crumbler,
        callee.addr(),
    )]));
    caller.gathered.send_replace(gathered(&host(caller.addr())[..1]));
    let (one, other) = negotiate((&caller, caller.policy()), (&callee, callee.policy())).await;
    assert_connected(one.unwrap(), other.unwrap()).await;
    crumble.abort();
}

/// Copies so that each byte is a packet of its own.
async fn byte_by_byte(mut from: impl AsyncRead + Unpin, mut to: OwnedWriteHalf) {
    to.as_ref().set_nodelay(true).unwrap();
    while let Ok(byte) = from.read_u8().await {
        if to.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn candidates_that_are_found_later_are_still_tried() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    caller.gathered.send_replace(Gathered::default());
    callee.gathered.send_replace(Gathered::default());
    let late = async {
        tokio::task::yield_now().await;
        caller.gathered.send_replace(gathered(&host(caller.addr())));
        callee.gathered.send_replace(gathered(&host(callee.addr())));
    };
    let both = negotiate((&caller, caller.policy()), (&callee, callee.policy()));
    let ((one, other), ()) = tokio::join!(both, late);
    assert_connected(one.unwrap(), other.unwrap()).await;
}

#[tokio::test]
async fn addresses_that_a_stranger_may_not_name_are_never_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let metadata: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let forbidden = [metadata, caller.addr(), "224.0.0.1:9".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let candidates = forbidden.map(|addr| local(CandidateKind::Host, TcpType::Passive, addr, callee.addr()));
    callee.gathered.send_replace(gathered(&candidates));
    caller.gathered.send_replace(gathered(&host(caller.addr())[..1]));
    let (one, other) = negotiate((&caller, caller.policy()), (&callee, callee.policy())).await;
    assert!(matches!(one.unwrap_err().reason, IceFailure::NoPath(_)));
    assert!(other.is_err());
    assert_eq!(caller.ice.counters().refused_candidates.get(), 4);
    assert_eq!(caller.ice.counters().connects.get(), 0);
    drop(listener);
}

#[tokio::test]
async fn who_answers_at_a_candidate_without_the_password_is_not_the_peer() {
    let (caller, callee, stranger) =
        (Side::on_loopback().await, Side::on_loopback().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = stranger.local_addr().unwrap();
    callee.gathered.send_replace(gathered(&[local(CandidateKind::Host, TcpType::Passive, addr, callee.addr())]));
    caller.gathered.send_replace(gathered(&host(caller.addr())[..1]));
    let parrot = tokio::spawn(async move {
        let (mut stream, _) = stranger.accept().await.unwrap();
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            let _ = stream.write_all(&bytes[..read]).await;
        }
    });
    let (one, _) = negotiate((&caller, caller.policy()), (&callee, callee.policy())).await;
    let error = one.unwrap_err();
    assert!(error.pairs.iter().all(|pair| pair.state != PairState::Succeeded), "{error:?}");
    in_time(parrot).await.unwrap();
}

#[tokio::test]
async fn dropping_a_negotiation_closes_its_connections_and_forgets_it() {
    let (caller, silent) = (Side::on_loopback().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = silent.local_addr().unwrap();
    let negotiation = caller.ice.begin(Role::Controlling).unwrap();
    let mut remote = caller.ice.begin(Role::Controlled).unwrap().description();
    remote.candidates = vec![local(CandidateKind::Host, TcpType::Passive, addr, addr).candidate];
    let (dialogue, _other) = dialogues(negotiation.description(), remote);
    let policy = caller.policy();
    let running = tokio::spawn(async move { negotiation.run(dialogue, &policy).await });
    let (mut accepted, _) = in_time(silent.accept()).await.unwrap();
    running.abort();
    let mut checks = Vec::new();
    let _ = in_time(accepted.read_to_end(&mut checks)).await;
    let many: Vec<_> = (0..MAX_NEGOTIATIONS).map(|_| caller.ice.begin(Role::Controlled)).collect();
    assert!(many.iter().all(Result::is_ok));
    assert!(caller.ice.begin(Role::Controlled).is_err());
    drop(many);
    assert!(caller.ice.begin(Role::Controlled).is_ok());
}

#[tokio::test]
async fn a_peer_that_hangs_up_ends_the_negotiation() {
    let (caller, silent) = (Side::on_loopback().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = silent.local_addr().unwrap();
    let negotiation = caller.ice.begin(Role::Controlling).unwrap();
    let mut remote = caller.ice.begin(Role::Controlled).unwrap().description();
    remote.complete = false;
    remote.candidates = vec![local(CandidateKind::Host, TcpType::Passive, addr, addr).candidate];
    let (dialogue, other) = dialogues(negotiation.description(), remote);
    drop(other);
    let error = in_time(negotiation.run(dialogue, &caller.policy())).await.unwrap_err();
    assert_eq!(error.reason, IceFailure::PeerGone);
}

#[tokio::test]
async fn a_flood_of_connections_with_the_right_name_and_the_wrong_password_does_not_stop_the_peer() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let controlling = caller.ice.begin(Role::Controlling).unwrap();
    let controlled = callee.ice.begin(Role::Controlled).unwrap();
    let forged = forged_check(&controlled.description().ufrag);
    let mut flood = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(callee.addr()).await.unwrap();
        stream.write_all(&forged).await.unwrap();
        flood.push(stream);
    }
    let (to_callee, to_caller) = dialogues(controlling.description(), controlled.description());
    let (caller_policy, callee_policy) = (caller.policy(), callee.policy());
    let (one, other) = in_time(async {
        tokio::join!(controlling.run(to_callee, &caller_policy), controlled.run(to_caller, &callee_policy))
    })
    .await;
    assert_connected(one.unwrap(), other.unwrap()).await;
}

/// A check that names a negotiation, and proves nothing.
fn forged_check(ufrag: &str) -> Vec<u8> {
    use stun_types::{
        attribute::Username,
        message::{
            BINDING, IntegrityAlgorithm, Message, MessageIntegrityCredentials, MessageWriteVec, ShortTermCredentials,
        },
        prelude::*,
    };
    let mut check = Message::builder_request(BINDING, MessageWriteVec::new());
    check.add_attribute(&Username::new(&format!("{ufrag}:guess")).unwrap()).unwrap();
    let credentials =
        MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new("a guess of the password".to_owned()));
    check.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1).unwrap();
    keyferry_ice::frame(&check.finish()).unwrap()
}

/// Two nodes behind routers that answer unsolicited SYNs with RST, with a core between them.
#[cfg(target_os = "linux")]
mod behind_routers {
    use super::*;
    use crate::net::port::nat_lab::{Host, NatLab};

    const PORT: u16 = 40_000;

    /// What a node there has gathered, for one family.
    fn gathered_on(own: Host, family: usize) -> Gathered {
        let base = SocketAddr::new(own.inner()[family], PORT);
        let outer = SocketAddr::new(own.outer()[family], PORT);
        let kind = if base == outer { CandidateKind::Host } else { CandidateKind::ServerReflexive };
        let opening = local(kind, TcpType::SimultaneousOpen, outer, base);
        let mut candidates = host(base);
        candidates.push(opening);
        gathered(&candidates)
    }

    /// Negotiates on one host of the lab, and sends a few raw bytes.
    async fn meet(
        host: Host,
        family: usize,
        role: Role,
        tell: std::sync::mpsc::Sender<Description>,
        hear: std::sync::mpsc::Receiver<Description>,
        signals: (mpsc::Sender<Signal>, mpsc::Receiver<Signal>),
    ) -> Result<Strategy, String> {
        let listen = [SocketAddr::new(host.inner()[family], PORT)];
        let side = Side::on(&listen, gathered_on(host, family)).await;
        let negotiation = side.ice.begin(role).unwrap();
        tell.send(negotiation.description()).unwrap();
        let remote = hear.recv().unwrap();
        let round_trip = watch::channel(Some(Duration::from_millis(5))).1;
        let dialogue = Dialogue { remote, round_trip, outgoing: signals.0, incoming: signals.1 };
        let result = in_time(negotiation.run(dialogue, &side.policy())).await;
        let mut path = result.map_err(|error| format!("{error}: {:?}", error.pairs))?;
        path.stream.write_all(b"raw").await.unwrap();
        let mut raw = [0; 3];
        in_time(path.stream.read_exact(&mut raw)).await.unwrap();
        match path.report.kind {
            PathKind::Punched(strategy) => Ok(strategy),
            other => Err(format!("{other:?}")),
        }
    }

    fn two_nodes_meet(family: usize) {
        let Some(lab) = NatLab::build() else { return };
        let (tell_b, hear_a) = std::sync::mpsc::channel();
        let (tell_a, hear_b) = std::sync::mpsc::channel();
        let (to_b, from_a) = mpsc::channel(32);
        let (to_a, from_b) = mpsc::channel(32);
        let a = lab.on(Host::A, move || meet(Host::A, family, Role::Controlling, tell_b, hear_b, (to_b, from_b)));
        let b = lab.on(Host::B, move || meet(Host::B, family, Role::Controlled, tell_a, hear_a, (to_a, from_a)));
        let strategies = (a.join().unwrap(), b.join().unwrap());
        // Whose turn it was depends on how fast a signal is compared with a SYN; on a machine that stalls, rounds go by.
        let agreed = match &strategies {
            (Ok(Strategy::OpenedHere { ttl: here }), Ok(Strategy::OpenedByPeer { ttl: by_peer }))
            | (Ok(Strategy::OpenedByPeer { ttl: by_peer }), Ok(Strategy::OpenedHere { ttl: here })) => here == by_peer,
            _ => false,
        };
        assert!(agreed, "{strategies:?}");
    }

    #[test]
    fn two_nodes_behind_nats_meet_by_an_opening_syn() {
        two_nodes_meet(0);
    }

    #[test]
    fn two_nodes_behind_ipv6_firewalls_meet_by_an_opening_syn() {
        two_nodes_meet(1);
    }
}
