//! Candidates that point where a peer has no business to point: a node is not made to knock at its own machine, its own
//! network, a metadata service, or all ports of somebody else's machine. Counted at listeners that must stay lonely.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use keyferry::{
    connect::ice::IceError,
    net::port::Port,
    reach::rendezvous::{Rendezvous, RendezvousConfig},
};
use keyferry_ice::{
    Candidate, CandidateKind, Config, Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Role, Signal, TcpType,
};
use keyferry_net::time::UnixTime;
use keyferry_proto::{
    identity::NodeSecret,
    offer::{Offer, SignedOffer, publish_days, seal},
};
use keyferry_tests::{
    ice::node::{IceNode, dialogue},
    lab::{Lab, SOON, TRANSFER},
    namespace::with_network,
    process::Keyferry,
};

/// The node's address in the namespace, and networks that lead to listeners of this test.
const NETWORK: &str = "ip addr add 203.0.113.1/32 dev lo; \
    for own in 3 4; do ip addr add 203.0.113.$own/32 dev lo; done; \
    for net in 169.254.0.0/16 10.66.0.0/16 100.64.0.0/10 192.168.77.0/24 198.51.100.0/24; do ip route add local $net dev lo; done; \
    ip -6 addr add 2001:db8::1/128 dev lo; ip -6 route add local fd00:ec2::/64 dev lo; ulimit -n 4096";

/// Where the listeners are.
const TRAP: u16 = 7777;

/// One address that a peer may well be at: without it, a node that connects to nothing would pass.
const ALLOWED: &str = "198.51.100.7:7777";

/// Some peer of libp2p.
const RELAY: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

const FORBIDDEN: [&str; 12] = [
    "127.0.0.1:7777",
    "127.8.9.1:7777",
    "0.0.0.0:7777",
    "169.254.169.254:7777",
    "10.66.1.1:7777",
    "100.64.3.4:7777",
    "192.168.77.1:7777",
    "224.0.0.1:7777",
    "255.255.255.255:7777",
    "[::1]:7777",
    "[::ffff:127.0.0.1]:7777",
    "[fd00:ec2::254]:7777",
];

#[test]
fn forbidden_addresses_in_a_description_are_not_connected_to() -> Result<()> {
    with_network("scanning::forbidden_addresses_in_a_description_are_not_connected_to", NETWORK, || {
        only_the_allowed_address_is_tried(|candidates| (description(candidates), Vec::new()))
    })
}

#[test]
fn forbidden_addresses_that_are_trickled_are_not_connected_to() -> Result<()> {
    with_network("scanning::forbidden_addresses_that_are_trickled_are_not_connected_to", NETWORK, || {
        only_the_allowed_address_is_tried(|candidates| {
            let described = Description { complete: false, ..description(Vec::new()) };
            (described, vec![Signal::Candidates { candidates, complete: true }])
        })
    })
}

#[test]
fn turns_that_name_forbidden_addresses_are_not_taken() -> Result<()> {
    with_network("scanning::turns_that_name_forbidden_addresses_are_not_taken", NETWORK, || {
        only_the_allowed_address_is_tried(|candidates| {
            let turn = |candidate: &Candidate| OpenTurn {
                round: 0,
                sender: candidate.addr,
                receiver: "203.0.113.1:1".parse().expect("an address"),
                ttl: 2,
            };
            let opened = candidates.iter().map(|candidate| Signal::Opened(turn(candidate)));
            let cross = |candidate| Signal::Cross { turn: turn(candidate), after: Duration::ZERO };
            let signals = opened.chain(candidates.iter().map(cross)).collect();
            (description(vec![passive(ALLOWED)]), signals)
        })
    })
}

#[test]
fn a_thousand_ports_of_a_third_host_are_not_scanned() -> Result<()> {
    with_network("scanning::a_thousand_ports_of_a_third_host_are_not_scanned", NETWORK, || {
        let ports = 20_000..21_000_u16;
        let third: IpAddr = "198.51.100.9".parse()?;
        let traps = ports.clone().map(|port| trap(SocketAddr::new(third, port))).collect::<Result<Vec<_>>>()?;
        let all: Vec<Candidate> = ports.map(|port| candidate(SocketAddr::new(third, port), TcpType::Passive)).collect();
        let (first, later) = all.split_at(MAX_SIGNALLED_CANDIDATES);
        let trickled = later.chunks(MAX_SIGNALLED_CANDIDATES);
        let signals =
            trickled.map(|candidates| Signal::Candidates { candidates: candidates.to_vec(), complete: false });
        let described = Description { complete: false, ..description(first.to_vec()) };

        negotiate(described, signals.collect())?;

        let knocked = knocks(&traps)?;
        let distinct: BTreeSet<_> = knocked.iter().collect();
        ensure!(!knocked.is_empty(), "nothing was tried at all");
        ensure!(distinct.len() <= MAX_SIGNALLED_CANDIDATES, "{} ports of a third host", distinct.len());
        ensure!(knocked.len() <= Config::default().max_attempts, "{} connections to a third host", knocked.len());
        Ok(())
    })
}

#[test]
fn forbidden_addresses_of_an_offer_are_not_connected_to() -> Result<()> {
    with_network("scanning::forbidden_addresses_of_an_offer_are_not_connected_to", NETWORK, || {
        let lab = Lab::new()?;
        let mut dht = lab.command("dht", ["node", "--public"])?;
        dht.env("KEYFERRY_LISTEN", "203.0.113.3:0");
        let mut dht = Keyferry::start(dht)?;
        let bootstrap = dht.wait_status(SOON)?.hints;
        let traps = [trap(format!("[::]:{TRAP}").parse()?)?];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let secret = NodeSecret::from_bytes(&[66; 32]);
        let _publisher = runtime.block_on(publish_a_lie(&secret, &bootstrap))?;

        let address = format!("keyferry:{}/file", secret.public());
        let mut getter = lab.command("getter", ["get", &address, "--wait", "none"])?;
        getter.env("KEYFERRY_LISTEN", "203.0.113.1:0").env("KEYFERRY_BOOTSTRAP", bootstrap.join(","));
        let outcome = Keyferry::start(getter)?.finish(TRANSFER)?;

        outcome.failure()?;
        only_the_allowed_address_has_been_tried(&traps)
    })
}

/// Publishes an offer that is signed as it should be, and leads where it should not.
async fn publish_a_lie(secret: &NodeSecret, bootstrap: &[String]) -> Result<Rendezvous> {
    let (port, incoming) = Port::bind(&["203.0.113.4:0".parse()?]).await?;
    let config = RendezvousConfig {
        bootstrap: bootstrap.iter().map(|hint| hint.parse()).collect::<Result<_, _>>()?,
        mdns: false,
        local_bootstrap: false,
        public: true,
        ..RendezvousConfig::new([67; 32].into())
    };
    let (rendezvous, _) = Rendezvous::spawn(config, Arc::new(port), incoming.libp2p)?;
    tokio::time::timeout(SOON, rendezvous.status().wait_for(|status| status.wan_peers > 0)).await??;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let now = UnixTime(now);
    let circuit = |addr: &str| format!("/ip4/{addr}/tcp/{TRAP}/p2p/{RELAY}/p2p-circuit").parse();
    let offer = Offer {
        candidates: FORBIDDEN.iter().copied().chain([ALLOWED]).map(passive).collect(),
        signalling: ["127.0.0.1", "169.254.169.254", "10.66.1.1"].map(circuit).into_iter().collect::<Result<_, _>>()?,
        sequence: 1,
        expires: now.plus(Duration::from_secs(3600)),
    };
    let signed = SignedOffer::sign(offer, secret)?;
    for day in publish_days(now) {
        let report = rendezvous.publish(seal(&signed, secret, day, [1; 24])?).await?;
        ensure!(report.wan > 0, "nobody has taken the offer");
    }
    Ok(rendezvous)
}

fn only_the_allowed_address_is_tried(tell: fn(Vec<Candidate>) -> (Description, Vec<Signal>)) -> Result<()> {
    // All addresses of both families.
    let traps = [trap(format!("[::]:{TRAP}").parse()?)?];
    let mut candidates: Vec<Candidate> = FORBIDDEN.iter().copied().map(passive).collect();
    candidates.push(passive(ALLOWED));
    let simultaneous = |addr: &&str| addr.parse().map(|addr| candidate(addr, TcpType::SimultaneousOpen));
    candidates.extend(FORBIDDEN.iter().map(simultaneous).collect::<Result<Vec<_>, _>>()?);
    let (described, signals) = tell(candidates);

    negotiate(described, signals)?;

    only_the_allowed_address_has_been_tried(&traps)
}

fn only_the_allowed_address_has_been_tried(traps: &[TcpListener]) -> Result<()> {
    let knocked: BTreeSet<String> = knocks(traps)?.iter().map(ToString::to_string).collect();
    ensure!(knocked == BTreeSet::from([ALLOWED.to_owned()]), "connected to {knocked:?}");
    Ok(())
}

/// Lets a node negotiate with a peer that says this, in both roles, until the node gives up.
fn negotiate(described: Description, signals: Vec<Signal>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for role in [Role::Controlling, Role::Controlled] {
        let error = runtime.block_on(give_up(role, described.clone(), signals.clone()))?;
        ensure!(error.pairs.len() <= Config::default().max_pairs, "{} pairs", error.pairs.len());
    }
    Ok(())
}

async fn give_up(role: Role, described: Description, signals: Vec<Signal>) -> Result<IceError> {
    let config =
        Config { deadline: Duration::from_secs(3), check_timeout: Duration::from_secs(1), ..Config::default() };
    let node = IceNode::start("203.0.113.1:0".parse()?, config).await?;
    let mut described = described;
    // The node's own listener, which nobody but a test would find so fast.
    described.candidates.push(candidate(node.addr, TcpType::Passive));
    described.candidates.truncate(MAX_SIGNALLED_CANDIDATES);
    let (dialogue, peer) = dialogue(described, Duration::from_millis(1));
    let to_node = peer.to_node.clone();
    tokio::spawn(async move {
        for signal in signals {
            if to_node.send(signal).await.is_err() {
                break;
            }
        }
    });
    let negotiation = node.begin(role)?;
    let ended = tokio::time::timeout(SOON, negotiation.run(dialogue, &node.policy)).await?;
    let counters = node.front.counters();
    ensure!(counters.ice_checks.get() == 0, "the node has called itself: {counters:?}");
    drop(peer);
    ended.err().ok_or_else(|| anyhow::anyhow!("a path to nobody"))
}

fn description(candidates: Vec<Candidate>) -> Description {
    Description {
        ufrag: "liar".to_owned(),
        password: "0123456789012345678901".to_owned(),
        candidates,
        complete: true,
        mapping: Mapping::EndpointIndependent,
        opening: true,
    }
}

fn passive(addr: &str) -> Candidate {
    candidate(addr.parse().expect("an address"), TcpType::Passive)
}

fn candidate(addr: SocketAddr, tcp_type: TcpType) -> Candidate {
    Candidate::new(CandidateKind::Host, tcp_type, addr, addr.port() & 0x1fff)
}

/// A listener that nobody serves: what connects to it waits to be counted.
fn trap(addr: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// To which addresses connections have come.
fn knocks(traps: &[TcpListener]) -> Result<Vec<SocketAddr>> {
    let mut knocks = Vec::new();
    for trap in traps {
        loop {
            match trap.accept() {
                Ok((stream, _)) => {
                    let addr = stream.local_addr()?;
                    knocks.push(SocketAddr::new(addr.ip().to_canonical(), addr.port()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(knocks)
}
