//! The state of the rendezvous, as the rest of the node sees it: what it says, and when it is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::watch;

use super::{
    behaviour::VERSION,
    counters::{RendezvousCounters, WhichCounter},
    observed::Observation,
};
use crate::base::clock::ClockSkew;

/// The least time between two publications.
const PAUSE: Duration = Duration::from_millis(50);
/// Other versions that are named.
const MAX_OTHER_VERSIONS: usize = 4;

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
    /// How far this machine's clock is from those of peers; none if nobody has told lately.
    pub clock: Option<ClockSkew>,
    /// What others say of the connections that they saw come from this node's port, at most one for each host.
    pub observed: Vec<Observation>,
    /// The addresses that others tried on request, in vain.
    pub unreachable: Vec<SocketAddr>,
    /// Addresses of peers of the wide-area DHT to which no connection leads from where connections leave now, so that one can.
    pub unconnected: Vec<SocketAddr>,
    /// Versions of the rendezvous that peers spoke and this node does not, at most 4.
    pub other_versions: BTreeSet<u32>,
    /// Records of others that are stored, of both DHTs.
    pub records: usize,
    /// Counters of bad input and of limits reached, by name.
    pub counters: BTreeMap<String, u64>,
}

impl RendezvousStatus {
    /// The state of a node that has nothing but stored records.
    pub(super) fn empty(peer: PeerId, records: usize) -> Self {
        Self {
            peer,
            wan_peers: 0,
            lan_peers: 0,
            connected: 0,
            public: false,
            listen: Vec::new(),
            external: Vec::new(),
            circuits: Vec::new(),
            clock: None,
            observed: Vec::new(),
            unreachable: Vec::new(),
            unconnected: Vec::new(),
            other_versions: BTreeSet::new(),
            records,
            counters: BTreeMap::new(),
        }
    }
}

/// Publishes the state, and keeps what is there for the state alone.
pub(super) struct StatusBoard {
    published: watch::Sender<RendezvousStatus>,
    /// When the state is published next; none while nothing has changed.
    due: Option<Instant>,
    counters: RendezvousCounters,
    /// Versions of the rendezvous that peers spoke and this node does not.
    other_versions: BTreeSet<u32>,
}

impl StatusBoard {
    /// Publishes a first state. Returns where it can be followed, too.
    pub(super) fn new(first: RendezvousStatus) -> (Self, watch::Receiver<RendezvousStatus>) {
        let (published, receiver) = watch::channel(first);
        let (counters, other_versions) = (RendezvousCounters::default(), BTreeSet::new());
        (Self { published, due: None, counters, other_versions }, receiver)
    }

    /// Adds one to a counter.
    pub(super) fn count(&mut self, counter: WhichCounter) {
        counter(&self.counters).add_one();
        self.changed();
    }

    /// Notes that a peer is of another version, so that the user hears of it where nothing is found.
    pub(super) fn on_other_version(&mut self, version: u32) {
        self.count(|counters| &counters.peer_of_another_version);
        if self.other_versions.len() < MAX_OTHER_VERSIONS && self.other_versions.insert(version) {
            tracing::warn!("a peer speaks version {version} of the rendezvous, this program speaks version {VERSION}");
        }
    }

    /// Notes that something has changed, so that the state is published soon.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + PAUSE);
    }

    /// Lets the state be published at the next look.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// When the state is to be published.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// The state that was published last.
    pub(super) fn last(&self) -> watch::Ref<'_, RendezvousStatus> {
        self.published.borrow()
    }

    /// Publishes the state, which lacks what is kept here, unless it is that of before.
    pub(super) fn publish(&mut self, status: RendezvousStatus) {
        self.due = None;
        let counters = self.counters.by_name().filter(|(_, count)| *count > 0).collect();
        let status = RendezvousStatus { counters, other_versions: self.other_versions.clone(), ..status };
        self.published.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}
