//! The task that owns the libp2p `Swarm`: it takes commands and events in turn, and keeps the parts together.
//!
//! What it is not: their logic. Lookups, announcements, contacts and records each have a file of their own.

mod events;
mod peers;
mod relays;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use keyferry_proto::offer::{RecordKey, SealedOffer};
use libp2p::{Multiaddr, PeerId, Swarm, kad, swarm::ConnectionId};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    announce::{PublishError, PublishReport, RecordAnnouncer},
    behaviour::{self, Behaviour},
    call_stream::{CallStream, OpenError},
    calls::CallOver,
    config::{RendezvousConfig, RendezvousError},
    counters::{RendezvousCounters, WhichCounter},
    entry_points::EntryPoints,
    handshake::Handshakes,
    lookup::{LookupKind, Lookups, Provider},
    observed::{Departures, Observations},
    record_store::RecordStore,
    reservations::Reservations,
    scope::{Scope, multiaddr_of, socket_addr_of},
    status::RendezvousStatus,
    transport::listening_addrs,
    turn::{AskReply, Credentials},
};
use crate::{
    base::clock,
    net::port::{Accepted, DEFAULT_PORT, Port},
};

/// How long the search for relays rests after its first round.
const FIRST_SEEK_PAUSE: Duration = Duration::from_secs(5);
/// With fewer peers than this in both routing tables, the bootstrap addresses are dialled.
const ENOUGH_PEERS: usize = 3;
/// The least time between two publications of the status.
const STATUS_PAUSE: Duration = Duration::from_millis(50);
/// The longest time between two looks at what has expired, and between two publications of the counters.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long after a change records are written, so that many are written together.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum RendezvousCommand {
    Publish { offer: Box<SealedOffer>, reply: oneshot::Sender<Result<PublishReport, PublishError>> },
    Resolve { key: RecordKey, results: mpsc::Sender<SealedOffer> },
    Provide { key: RecordKey, reply: oneshot::Sender<Result<(), PublishError>> },
    StopProviding { key: RecordKey },
    Providers { key: RecordKey, results: mpsc::Sender<Provider> },
    AddBootstrap { addr: Multiaddr },
    OpenCall { circuit: Multiaddr, over: CallOver, reply: oneshot::Sender<Result<CallStream, OpenError>> },
    TakeCalls { calls: mpsc::Sender<CallStream> },
    AskRelay { relay: PeerId, addrs: Vec<SocketAddr>, message: Vec<u8>, reply: AskReply },
    Count { counter: WhichCounter },
    Shutdown { reply: oneshot::Sender<()> },
}

/// The task's state.
pub(super) struct Actor {
    swarm: Swarm<Behaviour>,
    port: Arc<Port>,
    commands: mpsc::Receiver<RendezvousCommand>,
    status: watch::Sender<RendezvousStatus>,
    lookups: Lookups,
    announcer: RecordAnnouncer,
    contacts: EntryPoints,
    record_store: RecordStore,
    handshakes: Handshakes,
    reservations: Reservations,
    /// When peers may be dialled next because relays are lacking.
    seek_due: Instant,
    seek_pause: Duration,
    /// The remote addresses of all connections but circuits, by peer.
    connections: HashMap<PeerId, HashMap<ConnectionId, Multiaddr>>,
    /// Those of them that this node has dialled.
    dialled: HashSet<ConnectionId>,
    turn: Credentials,
    counters: RendezvousCounters,
    departures: Departures,
    observed: Observations,
    unreachable: BTreeSet<SocketAddr>,
    /// Versions of the rendezvous that peers spoke and this node does not.
    other_versions: BTreeSet<u32>,
    /// Addresses that were found reachable from outside, in that order.
    external: Vec<SocketAddr>,
    /// Set by the operator, and then never tested.
    public: bool,
    hidden: bool,
    /// Whether no peer of ours is connected.
    alone: bool,
    /// Whether there ever was one.
    has_been_joined: bool,
    status_due: Option<Instant>,
    write_due: Option<Instant>,
    sweep_due: Instant,
}

impl Actor {
    /// Makes the task's state; [`Self::run`] is the task.
    pub(super) fn new(
        config: RendezvousConfig,
        port: Arc<Port>,
        incoming: mpsc::Receiver<Accepted>,
        commands: mpsc::Receiver<RendezvousCommand>,
    ) -> Result<(Self, watch::Receiver<RendezvousStatus>), RendezvousError> {
        let first = *port.local_addrs().first().ok_or(RendezvousError::NoAddress)?;
        let handshakes = Handshakes::default();
        let departures = Departures::default();
        let mut swarm = behaviour::swarm(&config, port.clone(), incoming, handshakes.clone(), departures.clone())?;
        swarm.listen_on(multiaddr_of(first)).map_err(|error| RendezvousError::Setup(error.to_string()))?;
        let record_store = RecordStore::new(config.records);
        let loaded = record_store.load(swarm.behaviour_mut());
        tracing::debug!(loaded, "records of others loaded");
        let now = Instant::now();
        let mut contacts = EntryPoints::default();
        for addr in config.bootstrap {
            contacts.add(addr, now);
        }
        if config.local_bootstrap && port.number() != DEFAULT_PORT {
            contacts.add(multiaddr_of(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))), now);
        }
        let mut reservations = Reservations::new(*swarm.local_peer_id());
        reservations.set_needed(!config.public);
        let (status, receiver) = watch::channel(RendezvousStatus {
            peer: *swarm.local_peer_id(),
            wan_peers: 0,
            lan_peers: 0,
            connected: 0,
            public: config.public,
            listen: listening_addrs(&port).into_iter().collect(),
            external: Vec::new(),
            observed: Vec::new(),
            circuits: Vec::new(),
            unreachable: Vec::new(),
            unconnected: Vec::new(),
            records: loaded,
            other_versions: BTreeSet::new(),
            counters: BTreeMap::new(),
        });
        let mut actor = Self {
            swarm,
            port,
            commands,
            status,
            lookups: Lookups::default(),
            announcer: RecordAnnouncer::new(now),
            contacts,
            record_store,
            handshakes,
            reservations,
            seek_due: now,
            seek_pause: FIRST_SEEK_PAUSE,
            connections: HashMap::new(),
            dialled: HashSet::new(),
            turn: Credentials::new(config.turn),
            counters: RendezvousCounters::default(),
            departures,
            observed: Observations::default(),
            unreachable: BTreeSet::new(),
            other_versions: BTreeSet::new(),
            external: Vec::new(),
            public: config.public,
            hidden: config.hidden,
            alone: true,
            has_been_joined: false,
            status_due: None,
            write_due: None,
            sweep_due: now + SWEEP_INTERVAL,
        };
        actor.announce_relay();
        Ok((actor, receiver))
    }

    /// Works until all handles are gone or one of them ends it; then writes the records.
    pub(super) async fn run(mut self) {
        let mut ended_by: Option<oneshot::Sender<()>> = None;
        loop {
            let now = Instant::now();
            if self.next_due() <= now {
                self.tick(now);
            }
            let wake = tokio::time::sleep_until(self.next_due().into());
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(RendezvousCommand::Shutdown { reply }) => {
                        ended_by = Some(reply);
                        break;
                    }
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(decided) = self.turn.deciding.next() => self.on_decided(decided),
                () = wake => {}
            }
        }
        self.record_store.close(self.swarm.behaviour_mut()).await;
        if let Some(reply) = ended_by {
            let _ = reply.send(());
        }
    }

    fn on_command(&mut self, command: RendezvousCommand) {
        let behaviour = self.swarm.behaviour_mut();
        match command {
            RendezvousCommand::Publish { offer, reply } => self.announcer.publish(behaviour, *offer, reply),
            RendezvousCommand::Resolve { key, results } => {
                let wanted = LookupKind::Offer { best: None, results };
                if !self.lookups.start(behaviour, key, wanted, clock::now()) {
                    self.count(|counters| &counters.lookup_refused);
                }
            }
            RendezvousCommand::Provide { key, reply } => drop(reply.send(self.announcer.provide(behaviour, key))),
            RendezvousCommand::StopProviding { key } => self.announcer.stop_providing(behaviour, &key),
            RendezvousCommand::Providers { key, results } => {
                let wanted = LookupKind::Holders { seen: Default::default(), results };
                if !self.lookups.start(behaviour, key, wanted, clock::now()) {
                    self.count(|counters| &counters.lookup_refused);
                }
            }
            RendezvousCommand::AddBootstrap { addr } => {
                if !self.contacts.add(addr, Instant::now()) {
                    self.count(|counters| &counters.bootstrap_refused);
                }
            }
            RendezvousCommand::OpenCall { circuit, over, reply } => behaviour.calls.open(&circuit, over, reply),
            RendezvousCommand::TakeCalls { calls } => behaviour.calls.take(calls),
            RendezvousCommand::AskRelay { relay, addrs, message, reply } => {
                self.ask_relay(relay, &addrs, message, reply)
            }
            RendezvousCommand::Count { counter } => self.count(counter),
            RendezvousCommand::Shutdown { .. } => {}
        }
        self.records_may_have_changed();
    }

    fn next_due(&self) -> Instant {
        let due = [
            self.status_due,
            self.write_due,
            self.lookups.next_due(),
            self.contacts.next_due(self.needs_peers()),
            self.relays_due(Instant::now()),
        ];
        due.into_iter().flatten().chain([self.announcer.next_due(), self.sweep_due]).min().unwrap_or(self.sweep_due)
    }

    fn tick(&mut self, now: Instant) {
        let needs_peers = self.needs_peers();
        self.contacts.tick(&mut self.swarm, needs_peers, now);
        self.reservations.tick(&mut self.swarm, now);
        self.seek_relays(now);
        let behaviour = self.swarm.behaviour_mut();
        self.lookups.tick(behaviour, now);
        self.announcer.tick(behaviour, now);
        if self.sweep_due <= now {
            self.sweep_due = now + SWEEP_INTERVAL;
            Scope::ALL.into_iter().for_each(|scope| behaviour.kad(scope).store_mut().sweep());
            self.status_due = Some(now);
            self.announce_relay();
        }
        self.records_may_have_changed();
        if self.write_due.is_some_and(|due| due <= now) {
            self.write_due = None;
            if !self.record_store.write(self.swarm.behaviour_mut()) {
                self.write_due = Some(now + WRITE_PAUSE);
            }
        }
        if self.status_due.is_some_and(|due| due <= now) {
            self.status_due = None;
            self.publish_status();
        }
    }

    fn needs_peers(&self) -> bool {
        let status = self.status.borrow();
        self.alone || status.lan_peers + status.wan_peers < ENOUGH_PEERS
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        self.dialled.remove(&id);
        let Some(own) = self.connections.get_mut(&peer) else { return };
        own.remove(&id);
        if own.is_empty() {
            self.connections.remove(&peer);
            self.contacts.on_disconnected(peer);
            self.reservations.on_disconnected(&peer);
        }
        if self.connections.is_empty() && !self.alone {
            tracing::info!("all peers are gone");
            self.alone = true;
            self.announcer.on_all_lost();
            self.contacts.hurry(Instant::now());
            // Those in the routing tables may still be there.
            self.refresh_tables();
        }
        self.status_changed();
    }

    fn on_network_change(&mut self) {
        self.on_reachability();
        self.contacts.hurry(Instant::now());
        self.refresh_tables();
        self.status_changed();
    }

    /// The first peer after a time with none: what waited for one goes on.
    fn on_network_joined(&mut self) {
        if self.has_been_joined {
            // The peers in the tables may have gone with the network. (Kademlia does this itself for a first peer.)
            self.refresh_tables();
        }
        self.has_been_joined = true;
        for scope in Scope::ALL {
            if self.swarm.behaviour_mut().peers(scope) > 0 {
                self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
                self.announcer.on_peer(scope);
            }
        }
    }

    fn refresh_tables(&mut self) {
        for scope in Scope::ALL {
            // Without a peer there is nothing to refresh.
            let _ = self.swarm.behaviour_mut().kad(scope).bootstrap();
        }
    }

    fn count(&mut self, counter: WhichCounter) {
        counter(&self.counters).add_one();
        self.status_changed();
    }

    fn status_changed(&mut self) {
        self.status_due.get_or_insert_with(|| Instant::now() + STATUS_PAUSE);
    }

    fn records_may_have_changed(&mut self) {
        if self.write_due.is_none() && RecordStore::has_work(self.swarm.behaviour_mut()) {
            self.write_due = Some(Instant::now() + WRITE_PAUSE);
            self.status_changed();
        }
    }

    fn publish_status(&mut self) {
        let unconnected = self.unconnected();
        let listen = self.swarm.listeners().filter_map(socket_addr_of).collect();
        let behaviour = self.swarm.behaviour_mut();
        let own = self.counters.by_name().filter(|(_, count)| *count > 0);
        let status = RendezvousStatus {
            wan_peers: behaviour.peers(Scope::Wan),
            lan_peers: behaviour.peers(Scope::Lan),
            connected: self.connections.len(),
            public: behaviour.wan.inner.mode() == kad::Mode::Server,
            records: Scope::ALL.into_iter().map(|scope| behaviour.kad(scope).store_mut().len()).sum(),
            listen,
            external: self.external.clone(),
            circuits: self.reservations.circuits(),
            observed: self.observed.to_vec(),
            other_versions: self.other_versions.clone(),
            unreachable: self.unreachable.iter().copied().collect(),
            unconnected,
            counters: own.chain(self.port.counters().by_name()).collect(),
            peer: *self.swarm.local_peer_id(),
        };
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}
