//! One side of a pair: an agent, and what a node does for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    network::{HostId, Network},
    relay::{Relay, Told, bind_request},
    segment::FULL_TTL,
    tcp::{TcpEvent, Tuple},
    topology::Gathered,
};
use crate::{
    Agent, ConnId, ConnectMethod, FailureReason, FrameReader, LocalCandidate, Output, Selected, Signal, Source,
    addressed_ufrag, candidate::Candidate, frame,
};

/// How one side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    NotYet,
    Selected(Selected),
    Failed(FailureReason),
}

/// One connection of a side.
#[derive(Debug, Default)]
struct SideConn {
    id: Option<ConnId>,
    reader: FrameReader,
    unread: VecDeque<u8>,
    raw: bool,
}

/// What a data connection is for.
#[derive(Debug, Clone, Copy)]
struct Bind {
    number: u64,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Connect(ConnId),
    Accept { relayed: SocketAddr, remote: SocketAddr },
}

pub(super) struct Driver {
    name: u8,
    pub(super) agent: Agent,
    pub(super) host: HostId,
    pub(super) relay: Option<Relay>,
    /// Data connections to the relay, under way.
    binds: BTreeMap<Tuple, Bind>,
    /// The peer's address of connections that go through this side's relay.
    beyond: BTreeMap<ConnId, SocketAddr>,
    /// Those that the agent has not been told yet.
    pub(super) candidates: Vec<LocalCandidate>,
    /// The host's addresses.
    pub(super) ips: Vec<IpAddr>,
    start: Instant,
    conns: BTreeMap<Tuple, SideConn>,
    tuples: BTreeMap<ConnId, Tuple>,
    pub(super) ended: Ended,
    pub(super) ended_at: Option<Duration>,
    /// What came after the last frame.
    pub(super) raw: Vec<u8>,
    pub(super) most_sockets: usize,
    /// Connections on which the last frame has been sent.
    nominated: BTreeSet<ConnId>,
    pub(super) faults: Vec<String>,
    /// Signals to send.
    pub(super) outbox: Vec<Signal>,
}

impl Driver {
    pub(super) fn new(name: u8, agent: Agent, gathered: Gathered, start: Instant) -> Self {
        Self {
            name,
            agent,
            host: gathered.host,
            relay: None,
            binds: BTreeMap::new(),
            beyond: BTreeMap::new(),
            ips: gathered.candidates.iter().map(|known| known.base.ip()).collect(),
            candidates: gathered.candidates,
            start,
            conns: BTreeMap::new(),
            tuples: BTreeMap::new(),
            ended: Ended::NotYet,
            ended_at: None,
            raw: Vec::new(),
            most_sockets: 0,
            nominated: BTreeSet::new(),
            faults: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// What this side writes as soon as the connection is its own: it looks like anything but a frame.
    pub(super) fn raw_bytes(&self) -> Vec<u8> {
        [0x16, 3, 1, 0, 200, self.name].repeat(5)
    }

    pub(super) fn fault_once(&mut self, fault: &str) {
        if !self.faults.iter().any(|known| known == fault) {
            self.faults.push(fault.to_owned());
        }
    }

    /// Prints what happens, when somebody looks at a single seed.
    pub(super) fn trace(&self, now: Instant, what: &dyn std::fmt::Debug) {
        if std::env::var_os("KEYFERRY_TEST_SEED").is_some() {
            eprintln!("{:>12?} {}: {what:?}", now - self.start, char::from(self.name));
        }
    }

    /// Passes what TCP reports to the agent.
    pub(super) fn take(&mut self, net: &mut Network, now: Instant, event: TcpEvent) {
        self.trace(now, &event);
        match event {
            TcpEvent::Connected(tuple) if self.binds.contains_key(&tuple) => self.bind(net, now, tuple),
            TcpEvent::Connected(tuple) => {
                if let Some(id) = self.conns.get(&tuple).and_then(|conn| conn.id) {
                    self.agent.connected(now, id, tuple.local);
                }
            }
            TcpEvent::Failed(tuple, failure) => {
                self.binds.remove(&tuple);
                if let Some(id) = self.forget(tuple) {
                    self.agent.connect_failed(now, id, failure);
                }
            }
            TcpEvent::Accepted(tuple) if self.ended == Ended::NotYet => {
                self.conns.insert(tuple, SideConn::default());
            }
            TcpEvent::Accepted(tuple) => net.abort(self.host, tuple),
            TcpEvent::Bytes(tuple, bytes) => {
                if let Some(conn) = self.conns.get_mut(&tuple) {
                    conn.unread.extend(bytes);
                    self.read(net, now, tuple);
                }
            }
            TcpEvent::Closed(tuple) => {
                net.abort(self.host, tuple);
                let raw = self.conns.get(&tuple).is_some_and(|conn| conn.raw);
                if let Some(id) = self.forget(tuple).filter(|_| !raw) {
                    self.agent.closed(now, id);
                }
            }
        }
    }

    /// Asks the relay to let in whoever is named.
    pub(super) fn permit(&mut self, now: Instant, candidates: &[Candidate]) {
        let Some(relay) = &mut self.relay else { return };
        for candidate in candidates {
            relay.permit(now - self.start, candidate.addr.ip());
        }
    }

    /// Hears what the relay has to say, and makes the data connections that it offers.
    pub(super) fn hear_relay(&mut self, net: &mut Network, now: Instant) {
        while let Some(told) = self.relay.as_mut().and_then(|relay| relay.poll_told(now - self.start)) {
            self.trace(now, &told);
            match told {
                Told::Attempt { number, relayed, remote } if self.ended == Ended::NotYet => {
                    self.dial_relay(net, Bind { number, purpose: Purpose::Accept { relayed, remote } });
                }
                Told::Connected { number, conn } if self.beyond.contains_key(&conn) => {
                    self.dial_relay(net, Bind { number, purpose: Purpose::Connect(conn) });
                }
                Told::Failed { conn, failure } if self.beyond.remove(&conn).is_some() => {
                    self.agent.connect_failed(now, conn, failure);
                }
                _ => {}
            }
        }
    }

    fn dial_relay(&mut self, net: &mut Network, bind: Bind) {
        let local = self.ips.iter().find(|ip| ip.is_ipv4()).or(self.ips.first());
        let (Some(local), Some(relay)) = (local.copied(), &self.relay) else { return };
        let remote = relay.server(local.is_ipv4());
        let tuple = Tuple { local: SocketAddr::new(local, net.stack(self.host).any_port()), remote };
        net.connect(self.host, tuple, FULL_TTL).unwrap();
        self.binds.insert(tuple, bind);
        let id = match bind.purpose {
            Purpose::Connect(id) => Some(id),
            Purpose::Accept { .. } => None,
        };
        self.conns.insert(tuple, SideConn { id, ..SideConn::default() });
        self.tuples.extend(id.map(|id| (id, tuple)));
    }

    /// Says what a data connection is for: from then on it is one with the peer.
    fn bind(&mut self, net: &mut Network, now: Instant, tuple: Tuple) {
        let Some(Bind { number, purpose }) = self.binds.remove(&tuple) else { return };
        net.write(self.host, tuple, &bind_request(number));
        match purpose {
            Purpose::Connect(id) => self.agent.connected(now, id, tuple.local),
            Purpose::Accept { relayed, remote } => match self.agent.accepted(now, relayed, remote) {
                Some(id) => {
                    self.conns.get_mut(&tuple).unwrap().id = Some(id);
                    self.tuples.insert(id, tuple);
                    self.beyond.insert(id, remote);
                }
                None => self.turn_away(net, tuple),
            },
        }
    }

    fn forget(&mut self, tuple: Tuple) -> Option<ConnId> {
        self.binds.remove(&tuple);
        let id = self.conns.remove(&tuple)?.id?;
        self.tuples.remove(&id);
        self.beyond.remove(&id);
        Some(id)
    }

    /// Reads frames as long as there are any; the agent's outputs are drained after each.
    fn read(&mut self, net: &mut Network, now: Instant, tuple: Tuple) {
        while let Some(conn) = self.conns.get_mut(&tuple).filter(|conn| !conn.raw && !conn.unread.is_empty()) {
            let wanted = conn.reader.wanted().min(conn.unread.len());
            let bytes: Vec<u8> = conn.unread.drain(..wanted).collect();
            let id = conn.id;
            match conn.reader.push(&bytes) {
                Ok(None) => {}
                Ok(Some(message)) => match id.or_else(|| self.admit(now, tuple, &message)) {
                    Some(id) => self.agent.received(now, id, &message),
                    None => self.turn_away(net, tuple),
                },
                Err(_) => {
                    self.turn_away(net, tuple);
                    if let Some(id) = id {
                        self.agent.closed(now, id);
                    }
                }
            }
            self.drain(net, now);
        }
    }

    /// The agent's name for a connection that the peer made, if its first message is for the agent.
    fn admit(&mut self, now: Instant, tuple: Tuple, message: &[u8]) -> Option<ConnId> {
        let ufrag = addressed_ufrag(message)?;
        if ufrag != self.agent.description().ufrag || self.ended != Ended::NotYet {
            return None;
        }
        let id = self.agent.accepted(now, tuple.local, tuple.remote)?;
        self.conns.get_mut(&tuple)?.id = Some(id);
        self.tuples.insert(id, tuple);
        Some(id)
    }

    fn turn_away(&mut self, net: &mut Network, tuple: Tuple) {
        net.abort(self.host, tuple);
        self.forget(tuple);
    }

    /// Does what the agent wants.
    pub(super) fn drain(&mut self, net: &mut Network, now: Instant) {
        while let Some(output) = self.agent.poll_output() {
            self.trace(now, &output);
            if self.ended != Ended::NotYet && !matches!(output, Output::Close { .. }) {
                self.faults.push(format!("after the end: {output:?}"));
            }
            match output {
                Output::Connect { conn, source, remote, method } => {
                    self.connect(net, now, conn, source, remote, method);
                }
                Output::Send { conn, .. } if self.nominated.contains(&conn) => {
                    self.faults.push(format!("sends a frame on {conn:?} behind its last one"));
                }
                Output::Nominating { conn } => drop(self.nominated.insert(conn)),
                Output::Send { conn, message } => match self.tuples.get(&conn) {
                    Some(tuple) => net.write(self.host, *tuple, &frame(&message).unwrap()),
                    None => self.faults.push(format!("sends on {conn:?}, which is not there")),
                },
                Output::Close { conn } => self.close(net, conn),
                Output::Signal(signal) => self.outbox.push(signal),
                Output::Selected(selected) => self.select(net, now, selected),
                Output::Failed(reason) => self.end(net, now, Ended::Failed(reason)),
            }
            self.most_sockets = self.most_sockets.max(net.stack(self.host).open_sockets());
        }
    }

    fn connect(
        &mut self,
        net: &mut Network,
        now: Instant,
        id: ConnId,
        source: Source,
        remote: SocketAddr,
        method: ConnectMethod,
    ) {
        let local = match source {
            Source::Port(local) => local,
            Source::AnyPort(ip) => SocketAddr::new(ip, net.stack(self.host).any_port()),
            Source::Relayed(relayed) => {
                self.beyond.insert(id, remote);
                let relay = self.relay.as_mut().expect("a relay to connect from");
                return relay.connect(now - self.start, id, relayed, remote);
            }
        };
        let tuple = Tuple { local, remote };
        let ttl = match method {
            ConnectMethod::Plain => FULL_TTL,
            ConnectMethod::Opening { ttl } => ttl,
        };
        match net.connect(self.host, tuple, ttl) {
            Ok(()) => {
                self.conns.insert(tuple, SideConn { id: Some(id), ..SideConn::default() });
                self.tuples.insert(id, tuple);
                if ttl != FULL_TTL {
                    self.agent.opened(now, id);
                }
            }
            Err(failure) => self.agent.connect_failed(now, id, failure),
        }
    }

    fn close(&mut self, net: &mut Network, id: ConnId) {
        self.beyond.remove(&id);
        if let Some(tuple) = self.tuples.get(&id).copied() {
            if self.conns.get(&tuple).is_some_and(|conn| conn.raw) {
                self.faults.push("closes the selected connection".to_owned());
            }
            self.turn_away(net, tuple);
        }
    }

    fn select(&mut self, net: &mut Network, now: Instant, selected: Selected) {
        let Some(tuple) = self.tuples.get(&selected.conn).copied() else {
            return self.faults.push("selects a connection that is not there".to_owned());
        };
        let remote = self.beyond.get(&selected.conn).copied().unwrap_or(tuple.remote);
        if selected.remote != remote {
            self.faults.push(format!("selected {}, which is {remote}", selected.remote));
        }
        let conn = self.conns.get_mut(&tuple).unwrap();
        conn.raw = true;
        if conn.reader.is_within_frame() {
            self.faults.push("handed over within a frame".to_owned());
        }
        self.end(net, now, Ended::Selected(selected));
        net.write(self.host, tuple, &self.raw_bytes());
    }

    fn end(&mut self, net: &mut Network, now: Instant, ended: Ended) {
        if self.ended != Ended::NotYet {
            self.faults.push(format!("ends twice: {ended:?} after {:?}", self.ended));
        }
        self.ended = ended;
        self.ended_at = Some(now - self.start);
        // Whoever waits for a first frame waits in vain.
        let unproven: Vec<Tuple> =
            self.conns.iter().filter(|(_, conn)| conn.id.is_none()).map(|(tuple, _)| *tuple).collect();
        for tuple in unproven {
            self.turn_away(net, tuple);
        }
    }

    /// Takes the bytes behind the last frame.
    pub(super) fn read_raw(&mut self) {
        for conn in self.conns.values_mut().filter(|conn| conn.raw) {
            self.raw.extend(conn.unread.drain(..));
        }
    }
}
