//! The task that owns the libp2p `Swarm`: it takes commands and events in turn, and hands each to the part that it is for.
//!
//! What it is not: the logic of the parts, each of which has a file of its own.

mod asking_clocks;
mod doubting;
mod events;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use keyferry_proto::offer::{RecordKey, SealedOffer};
use libp2p::{Multiaddr, PeerId, Swarm, kad};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    address_proofs::AddressProofs,
    announce::{PublishError, PublishReport, RecordAnnouncer},
    behaviour::{self, Behaviour},
    call_stream::{CallStream, OpenCallError},
    calls::{CallOver, Calls},
    clocks::Clocks,
    config::{RendezvousConfig, RendezvousError},
    connections::PeerConnections,
    counters::WhichCounter,
    doubts::Doubts,
    entry_points::EntryPoints,
    handshake::Handshakes,
    hidden_line::HiddenLine,
    lookup::{LookupKind, Lookups, Provider},
    observed::Departures,
    reachability::NodeReachability,
    record_store::RecordStore,
    reservations::Reservations,
    routing,
    scope::{AddressScope, multiaddr_of, socket_addr_of},
    status::{RendezvousStatus, StatusBoard},
    transport::listening_addrs,
    turn::{AskReply, CredentialRequests, RelayLink, RelayRequests},
    upkeep::Upkeep,
    writes::Writes,
};
use crate::net::port::{Accepted, DEFAULT_PORT, Port};

/// With fewer peers than this in both routing tables, the bootstrap addresses are dialled.
const ENOUGH_PEERS: usize = 3;
/// The longest time between two looks at what has expired, and between two publications of the counters.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum RendezvousCommand {
    Publish { offer: Box<SealedOffer>, reply: oneshot::Sender<Result<PublishReport, PublishError>> },
    Resolve { key: RecordKey, results: mpsc::Sender<SealedOffer> },
    Provide { key: RecordKey, reply: oneshot::Sender<Result<(), PublishError>> },
    StopProviding { key: RecordKey },
    Providers { key: RecordKey, results: mpsc::Sender<Provider> },
    AddBootstrap { addr: Multiaddr },
    OpenCall { circuit: Multiaddr, over: CallOver, reply: oneshot::Sender<Result<CallStream, OpenCallError>> },
    TakeCalls { calls: mpsc::Sender<CallStream> },
    AskRelay { relay: PeerId, addrs: Vec<SocketAddr>, message: Vec<u8>, reply: AskReply },
    Doubt,
    ClockSet,
    Count { counter: WhichCounter },
    Shutdown { reply: oneshot::Sender<()> },
}

/// The task.
pub(super) struct Actor {
    swarm: Swarm<Behaviour>,
    /// Where a node that hides calls and is called.
    hidden_line: Option<HiddenLine>,
    commands: mpsc::Receiver<RendezvousCommand>,
    status: StatusBoard,
    connections: PeerConnections,
    address_proofs: AddressProofs,
    doubts: Doubts,
    entry_points: EntryPoints,
    upkeep: Upkeep,
    lookups: Lookups,
    announcer: RecordAnnouncer,
    record_store: RecordStore,
    writes: Writes,
    clocks: Clocks,
    handshakes: Handshakes,
    reachability: NodeReachability,
    reservations: Reservations,
    credential_requests: CredentialRequests,
    relay_requests: RelayRequests,
    sweep_due: Instant,
    max_incoming: usize,
}

impl Actor {
    /// Makes the parts; [`Self::run`] is the task.
    pub(super) fn new(
        config: RendezvousConfig,
        port: Arc<Port>,
        incoming: mpsc::Receiver<Accepted>,
        commands: mpsc::Receiver<RendezvousCommand>,
        interfaces_changed: mpsc::Receiver<()>,
    ) -> Result<(Self, watch::Receiver<RendezvousStatus>), RendezvousError> {
        let first = *port.local_addrs().first().ok_or(RendezvousError::NoAddress)?;
        let handshakes = Handshakes::new(port.traffic().clone());
        let departures = Departures::default();
        let (guard, left) = (handshakes.clone(), departures.clone());
        let hidden = config.hidden.as_ref();
        let hidden_line = hidden.map(|hidden| HiddenLine::new(hidden, port.traffic().clone())).transpose()?;
        let mut swarm = behaviour::swarm(&config, port.clone(), incoming, guard, left, interfaces_changed)?;
        swarm.listen_on(multiaddr_of(first)).map_err(|error| RendezvousError::Setup(error.to_string()))?;
        let record_store = RecordStore::new(config.records);
        let loaded = record_store.load(swarm.behaviour_mut());
        tracing::debug!(loaded, "records of others loaded");
        let now = Instant::now();
        let mut entry_points = EntryPoints::default();
        for addr in config.bootstrap {
            entry_points.add(addr, now);
        }
        if config.local_bootstrap && port.number() != DEFAULT_PORT {
            entry_points.add(multiaddr_of(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))), now);
        }
        let own = *swarm.local_peer_id();
        let called = hidden_line.as_ref().map_or(own, HiddenLine::peer);
        let mut reservations = Reservations::new(called, now);
        reservations.set_needed(!config.public);
        let listen = listening_addrs(&port).into_iter().collect();
        let (status, receiver) = StatusBoard::new(RendezvousStatus {
            public: config.public,
            listen,
            ..RendezvousStatus::empty(own, loaded)
        });
        let mut actor = Self {
            swarm,
            hidden_line,
            commands,
            status,
            connections: PeerConnections::default(),
            address_proofs: AddressProofs::new(now),
            doubts: Doubts::default(),
            entry_points,
            upkeep: Upkeep::new(now),
            lookups: Lookups::default(),
            announcer: RecordAnnouncer::new(now),
            record_store,
            writes: Writes::new(),
            clocks: Clocks::default(),
            handshakes,
            reachability: NodeReachability::new(config.public, config.hidden.is_some(), port, departures),
            reservations,
            credential_requests: CredentialRequests::default(),
            relay_requests: RelayRequests::new(config.turn),
            sweep_due: now + SWEEP_INTERVAL,
            max_incoming: config.max_incoming,
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
                event = HiddenLine::next(&mut self.hidden_line) => self.on_line_event(event),
                command = self.commands.recv() => match command {
                    Some(RendezvousCommand::Shutdown { reply }) => {
                        ended_by = Some(reply);
                        break;
                    }
                    Some(command) => self.on_command(command),
                    None => break,
                },
                Some(checked) = self.writes.checked() => self.on_checked(checked),
                Some(decided) = self.relay_requests.decided() => self.on_decided(decided),
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
                self.start_lookup(key, LookupKind::Offer { best: None, results });
            }
            RendezvousCommand::Provide { key, reply } => drop(reply.send(self.announcer.provide(behaviour, key))),
            RendezvousCommand::StopProviding { key } => self.announcer.stop_providing(behaviour, &key),
            RendezvousCommand::Providers { key, results } => {
                self.start_lookup(key, LookupKind::Providers { seen: Default::default(), results });
            }
            RendezvousCommand::AddBootstrap { addr } => {
                if !self.entry_points.add(addr, Instant::now()) {
                    self.status.count(|counters| &counters.bootstrap_refused);
                }
            }
            RendezvousCommand::OpenCall { circuit, over, reply } => {
                if let Some(calls) = self.calls() {
                    calls.open(&circuit, over, reply);
                }
            }
            RendezvousCommand::TakeCalls { calls: taker } => {
                if let Some(calls) = self.calls() {
                    calls.take(taker);
                }
            }
            RendezvousCommand::AskRelay { relay, addrs, message, reply } => {
                let link = match self.connections.contains(&relay) {
                    true => RelayLink::Direct,
                    false if self.swarm.is_connected(&relay) => RelayLink::Circuit,
                    false => RelayLink::Absent,
                };
                let exchange = &mut self.swarm.behaviour_mut().turn.inner;
                self.credential_requests.ask(exchange, (relay, link), &addrs, message, reply);
            }
            RendezvousCommand::Doubt => self.doubt_connections(),
            RendezvousCommand::ClockSet => self.on_clock_set(),
            RendezvousCommand::Count { counter } => self.status.count(counter),
            RendezvousCommand::Shutdown { .. } => {}
        }
        self.look_at_records();
    }

    /// Where calls are made and taken. Each node has one of the two.
    fn calls(&mut self) -> Option<&mut Calls> {
        match &mut self.hidden_line {
            Some(line) => Some(line.calls()),
            None => self.swarm.behaviour_mut().calls.as_mut(),
        }
    }

    fn start_lookup(&mut self, key: RecordKey, wanted: LookupKind) {
        if !self.lookups.start(self.swarm.behaviour_mut(), key, wanted) {
            self.status.count(|counters| &counters.lookup_refused);
        }
    }

    fn next_due(&self) -> Instant {
        let due = [
            self.status.next_due(),
            self.record_store.next_due(),
            self.lookups.next_due(),
            self.entry_points.next_due(self.needs_peers()),
            self.reservations.next_due(Instant::now()),
            self.address_proofs.next_due(),
        ];
        due.into_iter()
            .flatten()
            .chain([self.announcer.next_due(), self.upkeep.next_due(), self.sweep_due])
            .min()
            .unwrap_or(self.sweep_due)
    }

    fn tick(&mut self, now: Instant) {
        let needs_peers = self.needs_peers();
        self.entry_points.tick(&mut self.swarm, needs_peers, now);
        self.upkeep.tick(&mut self.swarm, &self.connections, now);
        match &mut self.hidden_line {
            Some(line) => self.reservations.ask(&mut line.swarm, now),
            None => self.reservations.ask(&mut self.swarm, now),
        }
        self.reservations.look(&mut self.swarm, &self.connections, now);
        self.address_proofs.tick(&mut self.swarm, now);
        let behaviour = self.swarm.behaviour_mut();
        self.lookups.tick(behaviour, now);
        self.announcer.tick(behaviour, now);
        if self.sweep_due <= now {
            self.sweep_due = now + SWEEP_INTERVAL;
            AddressScope::ALL.into_iter().for_each(|scope| behaviour.kad(scope).store_mut().sweep());
            self.status.hurry(now);
            self.announce_relay();
        }
        self.look_at_records();
        self.record_store.tick(self.swarm.behaviour_mut(), now);
        if self.status.next_due().is_some_and(|due| due <= now) {
            let current = self.current_status();
            self.status.publish(current);
        }
    }

    fn needs_peers(&self) -> bool {
        let last = self.status.last();
        !self.connections.is_joined() || last.lan_peers + last.wan_peers < ENOUGH_PEERS
    }

    fn look_at_records(&mut self) {
        if self.record_store.look(self.swarm.behaviour_mut(), Instant::now()) {
            self.status.changed();
        }
    }

    /// Announces this node's relay under the keys of now while it serves the wide-area DHT, and no longer under others.
    fn announce_relay(&mut self) {
        let is_server = self.swarm.behaviour_mut().wan.inner.mode() == kad::Mode::Server;
        let keys = if is_server { self.relay_requests.record_keys() } else { Vec::new() };
        self.announcer.set_relays(self.swarm.behaviour_mut(), keys);
    }

    /// The addresses that this node listens on.
    fn own_addrs(&self) -> Vec<SocketAddr> {
        self.swarm.listeners().filter_map(socket_addr_of).collect()
    }

    fn current_status(&mut self) -> RendezvousStatus {
        let listen = self.own_addrs();
        let own = *self.swarm.local_peer_id();
        let witnesses = self.connections.hosts_of(|connection| self.reachability.is_witnessed_by(connection));
        let behaviour = self.swarm.behaviour_mut();
        let records = AddressScope::ALL.into_iter().map(|scope| behaviour.kad(scope).store_mut().len()).sum();
        RendezvousStatus {
            wan_peers: behaviour.peers(AddressScope::Wan),
            lan_peers: behaviour.peers(AddressScope::Lan),
            connected: self.connections.peers(),
            public: behaviour.wan.inner.mode() == kad::Mode::Server,
            listen,
            external: self.reachability.external().to_vec(),
            circuits: self.reservations.circuits(),
            clock: self.clocks.skew(Instant::now()),
            observed: self.reachability.observed(),
            unreachable: self.reachability.unreachable(),
            unconnected: routing::unconnected(behaviour, &witnesses),
            ..RendezvousStatus::empty(own, records)
        }
    }
}
