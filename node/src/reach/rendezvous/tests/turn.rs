//! Credentials for TURN relays: who gets them, and who does not.

use std::{io, net::IpAddr, sync::Mutex};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use keyferry_net::time::UnixTime;
use keyferry_proto::{
    identity::NodeKey,
    relaying::{MAX_REQUEST_LEN, PROTOCOL, RelayChannel, RelayCredentials, RelayRefusal, Reply, node_request},
};
use libp2p::{
    StreamProtocol, Swarm, Transport,
    core::upgrade::Version,
    noise,
    request_response::{self, Codec, ProtocolSupport},
    swarm, yamux,
};

use super::*;
use crate::base::traffic::Traffic;
use crate::reach::rendezvous::{
    handshake::Handshakes, observed::Departures, transport::PortTransport, turn::RelayAnswer,
};

/// Issues to whom its policy allows, and notes who has asked.
pub(super) struct Issuer {
    lifetime: Duration,
    policy: fn(Requester) -> Result<(), RelayRefusal>,
    asked: Mutex<Vec<(Requester, IpAddr)>>,
}

impl Issuer {
    pub(super) fn new(lifetime: Duration, policy: fn(Requester) -> Result<(), RelayRefusal>) -> Arc<Self> {
        Arc::new(Self { lifetime, policy, asked: Mutex::default() })
    }

    pub(super) fn asked(&self) -> Vec<(Requester, IpAddr)> {
        self.asked.lock().unwrap().clone()
    }
}

impl CredentialIssuer for Issuer {
    fn issue(
        self: Arc<Self>,
        who: Requester,
        remote: IpAddr,
    ) -> BoxFuture<'static, Result<RelayCredentials, RelayRefusal>> {
        self.asked.lock().unwrap().push((who, remote));
        let issued = (self.policy)(who).map(|()| RelayCredentials {
            realm: "keyferry".to_owned(),
            username: format!("{}:{}", clock::now().0, who.peer),
            password: "cGFzc3dvcmQ=".to_owned(),
            expires: clock::now().plus(self.lifetime),
            addrs: Vec::new(),
            tls_pin: Some([7; 32]),
        });
        async move { issued }.boxed()
    }
}

pub(super) fn service(issuer: &Arc<Issuer>, secret: NodeSecret, audience: AnnouncedTo) -> TurnService {
    TurnService { issuer: issuer.clone(), secret, audience }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A node with key 1 that relays.
async fn relay(policy: fn(Requester) -> Result<(), RelayRefusal>) -> (Node, Arc<Issuer>) {
    let issuer = Issuer::new(HOUR, policy);
    let turn = Some(service(&issuer, secret(1), AnnouncedTo::Everyone));
    (start(RendezvousConfig { turn, ..quiet_config(&[]) }).await, issuer)
}

fn peer(node: &Node) -> PeerId {
    node.rendezvous.status().borrow().peer
}

async fn ask(node: &Node, relay: &Node, who: AskAs<'_>) -> Result<Granted, AskRelayError> {
    soon(node.rendezvous.ask_relay(peer(relay), &[relay.addr], who)).await
}

/// Sends these bytes as a request.
async fn ask_with(node: &Node, relay: &Node, message: Vec<u8>) -> Result<RelayAnswer, AskRelayError> {
    let (reply, answer) = oneshot::channel();
    let command = RendezvousCommand::AskRelay { relay: peer(relay), addrs: vec![relay.addr], message, reply };
    node.rendezvous.commands.send(command).await.unwrap();
    soon(answer).await.expect("an answer or a failure")
}

fn channel(relay: &Node, requester: &Node) -> RelayChannel {
    let key = |node| crate::reach::rendezvous::call_stream::key_of_peer(&peer(node)).unwrap();
    RelayChannel { relay: key(relay), requester: key(requester) }
}

fn key(seed: u8) -> NodeKey {
    secret(seed).public()
}

fn as_node(own: &NodeSecret) -> AskAs<'_> {
    AskAs::Node { secret: own, relay: key(1) }
}

async fn counted(node: &Node, counter: &str, least: u64) {
    node.until(|status| status.counters.get(counter).is_some_and(|count| *count >= least)).await;
}

#[tokio::test]
async fn a_relay_issues_to_strangers_and_to_nodes_and_its_policy_knows_which() {
    let (relay, issuer) = relay(|_| Ok(())).await;
    let asker = start(quiet_config(&[])).await;
    let granted = ask(&asker, &relay, AskAs::Anonymous).await.unwrap();
    assert_eq!((granted.via, granted.is_dialled), (relay.addr, true));
    assert_eq!((&*granted.issued.realm, granted.issued.tls_pin), ("keyferry", Some([7; 32])));
    assert!(granted.issued.addrs.is_empty(), "nothing on loopback is public");

    ask(&asker, &relay, as_node(&secret(2))).await.unwrap();
    let (asked, host) = (issuer.asked(), relay.addr.ip());
    let expected = [None, Some(key(2))].map(|node| (Requester { node, peer: peer(&asker) }, host));
    assert_eq!(asked, expected);
    counted(&relay, "turn_issued", 2).await;
}

#[tokio::test]
async fn the_relay_may_ask_over_the_connection_that_the_other_has_made() {
    let (relay, _) = relay(|_| Ok(())).await;
    let issuer = Issuer::new(HOUR, |_| Ok(()));
    let turn = Some(service(&issuer, secret(2), AnnouncedTo::Everyone));
    let other = start(RendezvousConfig { turn, ..quiet_config(&[&relay]) }).await;
    other.until(|status| status.connected == 1).await;
    relay.until(|status| status.connected == 1).await;
    let granted = soon(relay.rendezvous.ask_relay(peer(&other), &[], AskAs::Anonymous)).await.unwrap();
    assert_eq!((granted.via.ip(), granted.is_dialled), (other.addr.ip(), false));
}

#[tokio::test]
async fn who_is_refused_hears_why() {
    let (relay, _) = relay(|who| match who.node {
        Some(node) if node == key(2) => Ok(()),
        Some(_) => Err(RelayRefusal::Busy),
        None => Err(RelayRefusal::Policy),
    })
    .await;
    let asker = start(quiet_config(&[])).await;
    assert!(ask(&asker, &relay, as_node(&secret(2))).await.is_ok());
    let busy = ask(&asker, &relay, as_node(&secret(3))).await;
    assert!(matches!(busy, Err(AskRelayError::Refused(RelayRefusal::Busy))), "{busy:?}");
    let policy = ask(&asker, &relay, AskAs::Anonymous).await;
    assert!(matches!(policy, Err(AskRelayError::Refused(RelayRefusal::Policy))), "{policy:?}");
}

#[tokio::test]
async fn a_node_that_does_not_relay_or_is_not_there_is_told_apart() {
    let (plain, asker) = (start(quiet_config(&[])).await, start(quiet_config(&[])).await);
    let not_a_relay = ask(&asker, &plain, AskAs::Anonymous).await;
    assert!(matches!(not_a_relay, Err(AskRelayError::NotARelay)), "{not_a_relay:?}");
    let nowhere = soon(asker.rendezvous.ask_relay(PeerId::random(), &[], AskAs::Anonymous)).await;
    assert!(matches!(nowhere, Err(AskRelayError::Address)), "{nowhere:?}");
    let keys = libp2p::identity::Keypair::generate_ed25519();
    let somebody = keys.public().to_peer_id();
    for addr in ["127.0.0.1:1".parse().unwrap(), plain.addr] {
        let gone = soon(asker.rendezvous.ask_relay(somebody, &[addr], AskAs::Anonymous)).await;
        assert!(matches!(gone, Err(AskRelayError::Unreachable(_))), "{gone:?}");
    }
}

#[tokio::test]
async fn requests_that_are_replayed_forged_late_misdirected_or_no_requests_get_no_answer() {
    let (relay, issuer) = relay(|_| Ok(())).await;
    let (honest, thief) = (start(quiet_config(&[])).await, start(quiet_config(&[])).await);
    let (own, now, seed) = (secret(2), clock::now(), [5; 64]);
    let theirs = node_request(&own, &key(1), channel(&relay, &honest), now, &seed);
    let mut forged = node_request(&own, &key(1), channel(&relay, &thief), now, &seed);
    forged[100] ^= 1;
    let late = UnixTime(now.0 - 11 * 60);
    let wrong = [
        theirs.clone(),
        forged,
        node_request(&own, &key(1), channel(&relay, &thief), late, &seed),
        node_request(&own, &key(3), channel(&relay, &thief), now, &seed),
    ];
    for (count, message) in (1..).zip(wrong) {
        let answer = ask_with(&thief, &relay, message).await;
        assert!(matches!(answer, Err(AskRelayError::Unreachable(_))), "{answer:?}");
        counted(&relay, "turn_request_wrong", count).await;
    }
    assert!(issuer.asked().is_empty());
    // The honest one still gets in, by the very message.
    let answer = ask_with(&honest, &relay, theirs).await.unwrap();
    assert!(matches!(Reply::parse(&answer.message, clock::now()), Ok(Reply::Issued(_))));
    assert_eq!(issuer.asked()[0].0.node, Some(key(2)));
}

#[tokio::test]
async fn garbage_and_requests_that_are_too_long_are_refused_before_they_are_looked_at() {
    let (relay, issuer) = relay(|_| Ok(())).await;
    let asker = start(quiet_config(&[])).await;
    let too_long = ask_with(&asker, &relay, vec![0; MAX_REQUEST_LEN + 1]).await;
    assert!(matches!(too_long, Err(AskRelayError::Unreachable(_))), "{too_long:?}");
    counted(&relay, "turn_request_wrong", 1).await;
    for garbage in [vec![], vec![9; 4], vec![1; MAX_REQUEST_LEN]] {
        let answer = ask_with(&asker, &relay, garbage).await;
        assert!(matches!(answer, Err(AskRelayError::Unreachable(_))), "{answer:?}");
    }
    counted(&relay, "turn_request_wrong", 4).await;
    assert!(issuer.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_gets_a_few_answers_and_leaves_some_for_others() {
    let (relay, issuer) = relay(|_| Ok(())).await;
    let (flooder, other) = (start(quiet_config(&[])).await, start(quiet_config(&[])).await);
    let flood = (0..300).map(|_| {
        let rendezvous = flooder.rendezvous.clone();
        let (relay, addr) = (peer(&relay), relay.addr);
        async move { rendezvous.ask_relay(relay, &[addr], AskAs::Anonymous).await }
    });
    let answers = soon(futures::future::join_all(flood)).await;
    let issued = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..=4).contains(&issued) && issuer.asked().len() <= 4, "{issued}");
    assert!(ask(&other, &relay, AskAs::Anonymous).await.is_ok());
}

#[tokio::test]
async fn what_an_issuer_makes_that_nobody_would_take_is_not_sent() {
    struct Careless;
    impl CredentialIssuer for Careless {
        fn issue(
            self: Arc<Self>,
            _: Requester,
            _: IpAddr,
        ) -> BoxFuture<'static, Result<RelayCredentials, RelayRefusal>> {
            let issued = RelayCredentials {
                realm: String::new(),
                username: String::new(),
                password: String::new(),
                expires: UnixTime(0),
                addrs: Vec::new(),
                tls_pin: None,
            };
            async move { Ok(issued) }.boxed()
        }
    }
    let turn = TurnService { issuer: Arc::new(Careless), secret: secret(1), audience: AnnouncedTo::Everyone };
    let relay = start(RendezvousConfig { turn: Some(turn), ..quiet_config(&[]) }).await;
    let asker = start(quiet_config(&[])).await;
    let answer = ask(&asker, &relay, AskAs::Anonymous).await;
    assert!(matches!(answer, Err(AskRelayError::Unreachable(_))), "{answer:?}");
    counted(&relay, "turn_issuer_wrong", 1).await;
}

/// Opens streams and stops in the middle of a frame.
#[derive(Clone)]
struct Stalling;

impl Codec for Stalling {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()> {
        std::future::pending().await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()> {
        std::future::pending().await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut T,
        (): (),
    ) -> io::Result<()> {
        stream.write_all(&[4, 0]).await?;
        stream.flush().await?;
        std::future::pending().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        (): (),
    ) -> io::Result<()> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stall_keep_nobody_else_waiting() {
    let (relay, issuer) = relay(|_| Ok(())).await;
    let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let keys = libp2p::identity::Keypair::generate_ed25519();
    let transport =
        PortTransport::new(Arc::new(port), incoming.libp2p, Handshakes::new(Traffic::default()), Departures::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keys).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
    let protocol = [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Outbound)];
    let config = request_response::Config::default().with_max_concurrent_streams(1000);
    let stalling = request_response::Behaviour::with_codec(Stalling, protocol, config);
    let own = keys.public().to_peer_id();
    let mut swarm = Swarm::new(transport, stalling, own, swarm::Config::with_tokio_executor());
    for _ in 0..40 {
        let addrs = vec![multiaddr_of(relay.addr)];
        swarm.behaviour_mut().send_request_with_addresses(&peer(&relay), (), addrs);
    }
    let flood = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    relay.until(|status| status.connected == 1).await;
    let asker = start(quiet_config(&[])).await;
    assert!(ask(&asker, &relay, AskAs::Anonymous).await.is_ok());
    assert_eq!(issuer.asked().len(), 1);
    flood.abort();
}
