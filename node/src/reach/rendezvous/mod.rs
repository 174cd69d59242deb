//! Rendezvous: how a node finds another by its key. libp2p on the node's one port, with two Kademlia DHTs: one of the
//! wide area and one of the local network.
//!
//! One task owns the libp2p `Swarm` (`actor`); [`Rendezvous`] is the handle that others hold. Under the rendezvous
//! key, made at each start, nobody learns which node this is. Records are what `keyferry_proto::offer` defines, and are
//! checked on put and on get.
//!
//! What it is not: a path for file data, or the place where offers are made, opened or dialled.

mod actor;
mod announce;
mod behaviour;
mod call_stream;
mod calls;
mod circuit;
mod circuit_relay;
mod entry_points;
mod handshake;
mod keep_alive;
mod lookup;
#[cfg(feature = "mdns")]
mod multicast;
#[cfg(not(feature = "mdns"))]
#[path = "without_multicast.rs"]
mod multicast;
mod observed;
mod panic_guard;
mod record_store;
mod records;
mod reservations;
mod scope;
mod scope_filter;
mod transport;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    offer::{RecordKey, SealedOffer},
    relaying::Reply,
};
pub use libp2p::{Multiaddr, PeerId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use zeroize::Zeroizing;

pub use self::{
    behaviour::VERSION,
    call_stream::{CallBytes, CallIo, CallStream, OpenError},
    calls::CallOver,
    observed::Observation,
    scope::{Scope, multiaddr_of, socket_addr_of},
    turn::{AskAs, AskRelayError, Audience, CredentialIssuer, Granted, Requester, TurnService},
};
use crate::{
    base::clock,
    net::port::{Accepted, Port},
};

/// How long a lookup waits for a first peer, such as the answer of a bootstrap node.
pub const FIRST_PEER_WAIT: Duration = Duration::from_secs(10);
/// How long a lookup that finds nothing goes on, since the peer may have started a moment ago.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(12);
/// How often what was published and provided is announced again.
pub const REPUBLISH_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// Lookups that may run at a time; the result of one more is empty.
pub const MAX_LOOKUPS: usize = 256;
/// Offers that a node may keep published: one or two a day for each node key.
pub const MAX_PUBLISHED: usize = 64;
/// Contents that a node may announce.
pub const MAX_PROVIDED: usize = 4096;
/// Bootstrap addresses that are remembered.
pub const MAX_BOOTSTRAP: usize = 64;
/// Resident memory of the process above which no further libp2p connection is made, by default, in bytes.
pub const DEFAULT_MEMORY_LIMIT: usize = 512 * 1024 * 1024;

/// Commands that may wait for the task.
const COMMANDS: usize = 256;
/// Results of one lookup that may wait for its owner; more are dropped.
const RESULTS: usize = 32;
/// Incoming calls that may wait for who takes them; more are dropped.
const INCOMING_CALLS: usize = 32;

/// How the rendezvous is to work.
#[derive(Debug, Clone)]
pub struct RendezvousConfig {
    /// The rendezvous key, an ed25519 secret: 32 random bytes, fresh at each start.
    pub secret: Zeroizing<[u8; 32]>,
    /// Where to enter the DHT: multiaddrs with or without `/p2p/…` (which is ignored, because it changes at a restart).
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers of the local network by multicast. This needs the feature `mdns`.
    pub mdns: bool,
    /// Whether to try [`crate::net::port::DEFAULT_PORT`] of this machine, where another node may be.
    pub local_bootstrap: bool,
    /// Whether the node is reachable from everywhere, so that it serves the wide-area DHT without a test.
    pub public: bool,
    /// Whether the node tells nobody where it is: it counts as one that cannot be reached, serves no DHT and relays no calls,
    /// whatever others find out.
    pub hidden: bool,
    /// Where records of others are kept over a restart.
    pub records: Option<sled::Tree>,
    /// Resident memory of the process above which no further connection is made, in bytes.
    pub memory_limit: usize,
    /// What to answer and announce as a TURN relay, if this node is one.
    pub turn: Option<TurnService>,
}

/// Why the rendezvous could not be started. The fault is this machine's.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The port has no address that libp2p could listen on.
    #[error("the port has no address to listen on")]
    NoAddress,
    /// libp2p refuses its configuration.
    #[error("libp2p cannot be set up: {0}")]
    Setup(String),
    /// Multicast is wanted, and this build has none.
    #[error("nodes on the local network cannot be found: keyferry was built without its feature `mdns`")]
    WithoutMdns,
}

/// Why an offer or a provider record was not published. The fault is the caller's.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The offer has expired since it was made.
    #[error("the offer expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When its record expired.
        expires: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// A record with a greater sequence number is published under the same key.
    #[error("a record with sequence {published} is published already, this one has {got}")]
    Older {
        /// The sequence number of the published record.
        published: u64,
        /// The sequence number of the refused one.
        got: u64,
    },
    /// Too much is published already.
    #[error("{limit} records are published already, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The rendezvous has ended.
    #[error("the rendezvous has ended")]
    Ended,
}

/// Who took a record. It is published as soon as a peer appears where there was none, and again every
/// [`REPUBLISH_INTERVAL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishReport {
    /// Peers of the local DHT that took it.
    pub lan: usize,
    /// Peers of the wide-area DHT that took it.
    pub wan: usize,
}

/// Somebody who says that they hold a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The holder's rendezvous peer.
    pub peer: PeerId,
    /// The addresses of the holder's port, which takes sessions too; never empty.
    pub addrs: Vec<SocketAddr>,
    /// Whether a connection with that peer stands, with no relay between.
    pub is_connected: bool,
}

/// The state of the rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RendezvousStatus {
    /// This node's rendezvous peer.
    pub peer: PeerId,
    /// Peers in the routing table of the wide-area DHT.
    pub wan_peers: usize,
    /// Peers in the routing table of the local DHT.
    pub lan_peers: usize,
    /// Peers that are connected.
    pub connected: usize,
    /// Whether the wide-area DHT is served: reachability is confirmed, or the operator says so.
    pub public: bool,
    /// The addresses that the port listens on, with those of the interfaces for unspecified ones.
    pub listen: Vec<SocketAddr>,
    /// The addresses at which others reached this node when it asked them to try.
    pub external: Vec<SocketAddr>,
    /// The circuits at which this node may be called, while it cannot be reached by itself: at most
    /// `keyferry_proto::offer::MAX_SIGNALLING`.
    pub circuits: Vec<Multiaddr>,
    /// What others say of the connections that they saw come from this node's port, at most one for each host.
    pub observed: Vec<Observation>,
    /// The addresses that others tried on request, in vain.
    pub unreachable: Vec<SocketAddr>,
    /// Addresses of peers of the wide-area DHT that are not connected, so that this node's port is free to connect there.
    pub unconnected: Vec<SocketAddr>,
    /// Versions of the rendezvous that peers spoke and this node does not, at most 4.
    pub other_versions: BTreeSet<u32>,
    /// Records of others that are stored, of both DHTs.
    pub records: usize,
    /// Counters of bad input and of limits reached, by name.
    pub counters: BTreeMap<String, u64>,
}

/// The handle to the task that takes part in the DHTs. The task ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    commands: mpsc::Sender<RendezvousCommand>,
    status: watch::Receiver<RendezvousStatus>,
}

/// What a handle asks of the task.
#[derive(Debug)]
enum RendezvousCommand {
    Publish { offer: Box<SealedOffer>, reply: oneshot::Sender<Result<PublishReport, PublishError>> },
    Resolve { key: RecordKey, results: mpsc::Sender<SealedOffer> },
    Provide { key: RecordKey, reply: oneshot::Sender<Result<(), PublishError>> },
    StopProviding { key: RecordKey },
    Providers { key: RecordKey, results: mpsc::Sender<Provider> },
    AddBootstrap { addr: Multiaddr },
    OpenCall { circuit: Multiaddr, over: CallOver, reply: oneshot::Sender<Result<CallStream, OpenError>> },
    TakeCalls { calls: mpsc::Sender<CallStream> },
    AskRelay { relay: PeerId, addrs: Vec<SocketAddr>, message: Vec<u8>, reply: turn::AskReply },
    Count { counter: &'static str },
    Shutdown { reply: oneshot::Sender<()> },
}

impl RendezvousConfig {
    /// The defaults of a node: multicast and the default port of this machine are tried, nothing else is known.
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self {
            secret,
            bootstrap: Vec::new(),
            mdns: cfg!(feature = "mdns"),
            local_bootstrap: true,
            public: false,
            hidden: false,
            records: None,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            turn: None,
        }
    }
}

impl Rendezvous {
    /// Starts the task. `incoming` is [`crate::net::port::Incoming::libp2p`] of the same port.
    pub fn spawn(
        config: RendezvousConfig,
        port: Arc<Port>,
        incoming: mpsc::Receiver<Accepted>,
    ) -> Result<(Rendezvous, JoinHandle<()>), RendezvousError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (actor, status) = actor::Actor::new(config, port, incoming, command_receiver)?;
        let task = tokio::spawn(actor.run());
        Ok((Rendezvous { commands, status }, task))
    }

    /// Publishes an offer in both DHTs, in place of any earlier one under its key, and keeps it published until it
    /// expires. Returns when those who are there have taken it, at once if nobody is there yet.
    pub async fn publish(&self, offer: SealedOffer) -> Result<PublishReport, PublishError> {
        let (reply, answer) = oneshot::channel();
        self.send(RendezvousCommand::Publish { offer: Box::new(offer), reply }).await?;
        answer.await.map_err(|_| PublishError::Ended)?
    }

    /// Looks for the offer under a key: checked records as they arrive, each newer than the one before. The channel
    /// closes when the lookup has ended; dropping it ends the lookup.
    pub fn resolve(&self, key: RecordKey) -> mpsc::Receiver<SealedOffer> {
        let (results, receiver) = mpsc::channel(RESULTS);
        self.send_detached(RendezvousCommand::Resolve { key, results });
        receiver
    }

    /// Announces that this node holds a content, in both DHTs, and keeps it announced.
    pub async fn provide(&self, key: RecordKey) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.send(RendezvousCommand::Provide { key, reply }).await?;
        answer.await.map_err(|_| PublishError::Ended)?
    }

    /// Announces a content no longer. Others forget it when the record expires.
    pub async fn stop_providing(&self, key: RecordKey) {
        let _ = self.send(RendezvousCommand::StopProviding { key }).await;
    }

    /// Looks for the holders of a content, each once, as they are found. The channel closes when the lookup has ended;
    /// dropping it ends the lookup. Anyone can claim to be a holder.
    pub fn providers(&self, key: RecordKey) -> mpsc::Receiver<Provider> {
        let (results, receiver) = mpsc::channel(RESULTS);
        self.send_detached(RendezvousCommand::Providers { key, results });
        receiver
    }

    /// The state, as it changes.
    pub fn status(&self) -> watch::Receiver<RendezvousStatus> {
        self.status.clone()
    }

    /// Adds an address where the DHT can be entered, such as a `?via=` hint, and dials it.
    pub async fn add_bootstrap(&self, addr: Multiaddr) {
        let _ = self.send(RendezvousCommand::AddBootstrap { addr }).await;
    }

    /// Opens a stream for a call: over a connection with the peer that stands, or over the circuit. The circuit is closed
    /// when the stream is dropped; dropping the future gives the call up.
    pub async fn open_call(&self, circuit: &Multiaddr, over: CallOver) -> Result<CallStream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let command = RendezvousCommand::OpenCall { circuit: circuit.clone(), over, reply };
        self.commands.send(command).await.map_err(|_| OpenError::Ended)?;
        answer.await.map_err(|_| OpenError::Unreachable("the connection has closed".to_owned()))?
    }

    /// The streams of incoming calls, from now on. Whoever asked last gets them; without anybody, they are refused.
    pub fn incoming_calls(&self) -> mpsc::Receiver<CallStream> {
        let (calls, receiver) = mpsc::channel(INCOMING_CALLS);
        self.send_detached(RendezvousCommand::TakeCalls { calls });
        receiver
    }

    /// Asks a peer for leave to use it as a TURN relay: over a connection that stands, or over one that is made to one of its
    /// addresses.
    pub async fn ask_relay(
        &self,
        relay: PeerId,
        addrs: &[SocketAddr],
        who: AskAs<'_>,
    ) -> Result<Granted, AskRelayError> {
        let own = self.status.borrow().peer;
        let message = turn::request(&own, &relay, who)?;
        let (reply, answer) = oneshot::channel();
        let command = RendezvousCommand::AskRelay { relay, addrs: addrs.to_vec(), message, reply };
        self.commands.send(command).await.map_err(|_| AskRelayError::Ended)?;
        let answer = tokio::time::timeout(turn::ASK_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| AskRelayError::Unreachable("it does not answer".to_owned()))?;
        let turn::RelayAnswer { message, via, is_dialled } = answer.map_err(|_| AskRelayError::Ended)??;
        match Reply::parse(&message, clock::now())? {
            Reply::Issued(issued) => Ok(Granted { issued, via, is_dialled }),
            Reply::Refused(refusal) => Err(AskRelayError::Refused(refusal)),
        }
    }

    /// Adds one to a counter of the status.
    pub(crate) fn count(&self, counter: &'static str) {
        // A flood may leave some uncounted.
        let _ = self.commands.try_send(RendezvousCommand::Count { counter });
    }

    /// Ends the task, whoever else holds a handle, and returns when the records are on disk.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(RendezvousCommand::Shutdown { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn send(&self, command: RendezvousCommand) -> Result<(), PublishError> {
        self.commands.send(command).await.map_err(|_| PublishError::Ended)
    }

    /// Sends without making the caller wait; the command is given up with the rendezvous.
    fn send_detached(&self, command: RendezvousCommand) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }
}

#[cfg(test)]
mod tests;
