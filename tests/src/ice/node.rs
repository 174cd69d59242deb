//! The parts of a node that strangers meet before a session: its port, the front for STUN, and its negotiations, in this
//! process, with signals over channels.
//!
//! What it is not: a node. Nobody dials from it but negotiations, and there is no DHT, session or store.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use keyferry::{
    connect::demux::stun::Front,
    connect::ice::{Dialogue, IceHost, Negotiation},
    net::{
        path::AddressPolicy,
        port::{IncomingConnections, Port},
    },
    reach::gather::{Gathered, PortMapping},
};
use keyferry_ice::{Candidate, CandidateKind, Config, Description, LocalCandidate, Mapping, Role, Signal, TcpType};
use tokio::sync::{mpsc, watch};

/// The port of candidates that have none (RFC 6544 §4.5).
const DISCARD: u16 = 9;

/// Signals that may wait in each direction.
const WAITING_SIGNALS: usize = 32;

/// A port, and who takes STUN and checks from it.
pub struct IceNode {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it may be made to connect to.
    pub policy: AddressPolicy,
    /// Its port.
    pub port: Port,
    /// Who takes what comes in for STUN.
    pub front: Front,
    /// Its negotiations.
    pub ice: Arc<IceHost>,
    _gathered: watch::Sender<Gathered>,
    // Connections for the others are dropped when these queues are.
    _libp2p: mpsc::Receiver<keyferry::net::port::Accepted>,
    _sessions: mpsc::Receiver<keyferry::net::port::Accepted>,
}

/// The other end of a negotiation's signalling, in the hands of a test.
pub struct Peer {
    /// Signals to the node.
    pub to_node: mpsc::Sender<Signal>,
    /// Signals from the node.
    pub from_node: mpsc::Receiver<Signal>,
    _round_trip: watch::Sender<Option<Duration>>,
}

impl IceNode {
    /// Listens at `listen`, which is all that it has gathered.
    pub async fn start(listen: SocketAddr, config: Config) -> Result<Self> {
        let (port, incoming) = Port::bind(&[listen]).await?;
        let IncomingConnections { libp2p, sessions, stun } = incoming;
        let addr = port.local_addrs()[0];
        let (sender, gathered) = watch::channel(gathered(addr));
        let ice = IceHost::new(gathered, config);
        let front = Front::spawn(stun, Arc::clone(&ice), true, None, &port);
        let policy = AddressPolicy::for_listeners(&[addr])?;
        Ok(Self { addr, policy, port, front, ice, _gathered: sender, _libp2p: libp2p, _sessions: sessions })
    }

    /// Begins a negotiation.
    pub fn begin(&self, role: Role) -> Result<Negotiation> {
        Ok(self.ice.begin(role)?)
    }
}

/// What a host without NAT gathers.
fn gathered(addr: SocketAddr) -> Gathered {
    let candidate = |tcp_type, addr| Candidate::new(CandidateKind::Host, tcp_type, addr, 8191);
    let candidates = [
        candidate(TcpType::Active, SocketAddr::new(addr.ip(), DISCARD)),
        candidate(TcpType::Passive, addr),
        candidate(TcpType::SimultaneousOpen, addr),
    ];
    Gathered {
        candidates: candidates.map(|candidate| LocalCandidate { candidate, base: addr }).to_vec(),
        mapping: Mapping::EndpointIndependent,
        complete: true,
        observations: Vec::new(),
        stun: Vec::new(),
        port_mapping: PortMapping::Off,
    }
}

/// A call by whose other end a test speaks.
pub fn dialogue(remote: Description, round_trip: Duration) -> (Dialogue, Peer) {
    let (to_node, incoming) = mpsc::channel(WAITING_SIGNALS);
    let (outgoing, from_node) = mpsc::channel(WAITING_SIGNALS);
    let (sender, round_trip) = watch::channel(Some(round_trip));
    (Dialogue { remote, round_trip, outgoing, incoming }, Peer { to_node, from_node, _round_trip: sender })
}
