//! A relay of the virtual network, and what a node does to use it: a TURN server for TCP (RFC 6062), as far as an agent can
//! tell it from a real one.
//!
//! Each allocation has a host of its own in the core, so that its address differs from that of the server. Requests and
//! indications take as long as segments do. A data connection is a real one of the virtual TCP; its first bytes say which
//! connection of the relay it is for, as ConnectionBind does.
//!
//! What it is not: TURN's messages, its authentication, or its expiry.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    network::{HostId, Network},
    segment::FULL_TTL,
    tcp::{TcpEvent, Tuple},
};
use crate::{ConnId, ConnectFailure};

/// The server's port: the one that firewalls let out.
const SERVER_PORT: u16 = 443;
/// The port of relayed addresses: one that they do not.
pub(super) const RELAYED_PORT: u16 = 50_001;
/// The number of a connection, at the beginning of the data connection for it.
const BIND_LEN: usize = 8;

/// Which relay a side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Families {
    V4,
    Both,
}

/// What the relay tells its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// A peer has connected to a relayed address (ConnectionAttempt).
    Attempt { number: u64, relayed: SocketAddr, remote: SocketAddr },
    /// A peer that was asked for is connected.
    Connected { number: u64, conn: ConnId },
    /// It is not.
    Failed { conn: ConnId, failure: ConnectFailure },
}

/// One end of a connection that the relay has.
type RelayEnd = (HostId, Tuple);

/// A connection with a peer that waits for its data connection.
#[derive(Debug)]
struct Waiting {
    end: RelayEnd,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Relay {
    server: HostId,
    server_ips: Vec<IpAddr>,
    allocations: Vec<(HostId, SocketAddr)>,
    latency: Duration,
    pub(super) permissions_take: Duration,
    permissions: BTreeSet<IpAddr>,
    /// Permissions that are on their way to the server.
    asked: VecDeque<(Duration, IpAddr)>,
    /// Connections that the client has asked for, likewise.
    wanted: VecDeque<(Duration, ConnId, SocketAddr, SocketAddr)>,
    connecting: BTreeMap<RelayEnd, ConnId>,
    waiting: BTreeMap<u64, Waiting>,
    /// Data connections that have not said what they are for.
    unbound: BTreeMap<Tuple, Vec<u8>>,
    bridges: BTreeMap<RelayEnd, RelayEnd>,
    last_number: u64,
    /// What is on its way to the client.
    told: VecDeque<(Duration, Told)>,
}

impl Relay {
    /// A relay with an allocation for each family that it has. `side` tells the two relays of a scene apart.
    pub(super) fn new(net: &mut Network, side: u8, families: Families, latency: Duration) -> Self {
        let v4 = |last| IpAddr::from([192, 0, 2, last]);
        let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last]);
        let (server, relayed) = (100 + 10 * side, 101 + 10 * side);
        let server_ips = vec![v4(server), v6(u16::from(server))];
        let mut relayed_ips = vec![v4(relayed)];
        relayed_ips.extend((families == Families::Both).then(|| v6(u16::from(relayed))));
        let mut allocate = |ip| (net.add_host(None, &[ip], RELAYED_PORT), SocketAddr::new(ip, RELAYED_PORT));
        let allocations = relayed_ips.into_iter().map(&mut allocate).collect();
        Self {
            server: net.add_host(None, &server_ips, SERVER_PORT),
            server_ips,
            allocations,
            latency,
            permissions_take: Duration::ZERO,
            permissions: BTreeSet::new(),
            asked: VecDeque::new(),
            wanted: VecDeque::new(),
            connecting: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unbound: BTreeMap::new(),
            bridges: BTreeMap::new(),
            last_number: 0,
            told: VecDeque::new(),
        }
    }

    /// The relayed addresses.
    pub(super) fn relayed(&self) -> impl Iterator<Item = SocketAddr> {
        self.allocations.iter().map(|(_, relayed)| *relayed)
    }

    /// The server, as a client of that family reaches it.
    pub(super) fn server(&self, is_ipv4: bool) -> SocketAddr {
        let ip = self.server_ips.iter().find(|ip| ip.is_ipv4() == is_ipv4).unwrap();
        SocketAddr::new(*ip, SERVER_PORT)
    }

    /// The client asks to let a peer in.
    pub(super) fn permit(&mut self, now: Duration, peer: IpAddr) {
        self.asked.push_back((now + self.latency + self.permissions_take, peer));
    }

    /// The client asks for a connection from one of its relayed addresses.
    pub(super) fn connect(&mut self, now: Duration, conn: ConnId, relayed: SocketAddr, remote: SocketAddr) {
        self.wanted.push_back((now + self.latency, conn, relayed, remote));
    }

    /// When something is due that is not a segment.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let asked = self.asked.front().map(|(at, ..)| *at);
        let wanted = self.wanted.front().map(|(at, ..)| *at);
        [asked, wanted, self.told.front().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, net: &mut Network, now: Duration) {
        while let Some((_, peer)) = self.asked.pop_front_if(|(at, _)| *at <= now) {
            self.permissions.insert(peer);
        }
        while let Some((_, conn, relayed, remote)) = self.wanted.pop_front_if(|(at, ..)| *at <= now) {
            self.connect_to(net, now, conn, Tuple { local: relayed, remote });
        }
        let hosts: Vec<HostId> = self.allocations.iter().map(|(host, _)| *host).collect();
        for host in hosts {
            while let Some(event) = net.poll_event(host) {
                self.take_from_peer(net, now, host, event);
            }
        }
        while let Some(event) = net.poll_event(self.server) {
            self.take_from_client(net, event);
        }
    }

    /// What has reached the client by now.
    pub(super) fn poll_told(&mut self, now: Duration) -> Option<Told> {
        self.told.pop_front_if(|(at, _)| *at <= now).map(|(_, told)| told)
    }

    fn connect_to(&mut self, net: &mut Network, now: Duration, conn: ConnId, tuple: Tuple) {
        let host = self.allocations.iter().find(|(_, relayed)| *relayed == tuple.local).map(|(host, _)| *host);
        match host.map(|host| (host, net.connect(host, tuple, FULL_TTL))) {
            Some((host, Ok(()))) => drop(self.connecting.insert((host, tuple), conn)),
            Some((_, Err(failure))) => self.tell(now, Told::Failed { conn, failure }),
            None => self.tell(now, Told::Failed { conn, failure: ConnectFailure::Other }),
        }
    }

    fn take_from_peer(&mut self, net: &mut Network, now: Duration, host: HostId, event: TcpEvent) {
        match event {
            TcpEvent::Accepted(tuple) if self.permissions.contains(&tuple.remote.ip()) => {
                let number = self.wait((host, tuple));
                self.tell(now, Told::Attempt { number, relayed: tuple.local, remote: tuple.remote });
            }
            // RFC 6062 §5.3: without a permission it is closed at once.
            TcpEvent::Accepted(tuple) => net.abort(host, tuple),
            TcpEvent::Connected(tuple) => {
                let number = self.wait((host, tuple));
                if let Some(conn) = self.connecting.remove(&(host, tuple)) {
                    self.tell(now, Told::Connected { number, conn });
                }
            }
            TcpEvent::Failed(tuple, failure) => {
                if let Some(conn) = self.connecting.remove(&(host, tuple)) {
                    self.tell(now, Told::Failed { conn, failure });
                }
            }
            TcpEvent::Bytes(tuple, bytes) => match self.bridges.get(&(host, tuple)) {
                Some((other, beyond)) => net.write(*other, *beyond, &bytes),
                None => {
                    let waiting = self.waiting.values_mut().find(|waiting| waiting.end == (host, tuple));
                    waiting.into_iter().for_each(|waiting| waiting.unread.extend(&bytes));
                }
            },
            TcpEvent::Closed(tuple) => self.close(net, (host, tuple)),
        }
    }

    fn take_from_client(&mut self, net: &mut Network, event: TcpEvent) {
        match event {
            TcpEvent::Accepted(tuple) => drop(self.unbound.insert(tuple, Vec::new())),
            TcpEvent::Bytes(tuple, bytes) => match self.bridges.get(&(self.server, tuple)) {
                Some((other, beyond)) => net.write(*other, *beyond, &bytes),
                None => self.bind(net, tuple, &bytes),
            },
            TcpEvent::Closed(tuple) => self.close(net, (self.server, tuple)),
            TcpEvent::Connected(_) | TcpEvent::Failed(..) => {}
        }
    }

    fn bind(&mut self, net: &mut Network, tuple: Tuple, bytes: &[u8]) {
        let Some(known) = self.unbound.get_mut(&tuple) else { return };
        known.extend(bytes);
        let Some((number, rest)) = known.split_first_chunk::<BIND_LEN>() else { return };
        match self.waiting.remove(&u64::from_le_bytes(*number)) {
            Some(Waiting { end, unread }) => {
                net.write(end.0, end.1, rest);
                net.write(self.server, tuple, &unread);
                self.bridges.insert(end, (self.server, tuple));
                self.bridges.insert((self.server, tuple), end);
            }
            None => net.abort(self.server, tuple),
        }
        self.unbound.remove(&tuple);
    }

    fn close(&mut self, net: &mut Network, end: RelayEnd) {
        net.abort(end.0, end.1);
        self.unbound.remove(&end.1);
        self.waiting.retain(|_, waiting| waiting.end != end);
        if let Some(other) = self.bridges.remove(&end) {
            self.bridges.remove(&other);
            // What was written before has to arrive.
            net.close(other.0, other.1);
        }
    }

    fn wait(&mut self, end: RelayEnd) -> u64 {
        self.last_number += 1;
        self.waiting.insert(self.last_number, Waiting { end, unread: Vec::new() });
        self.last_number
    }

    fn tell(&mut self, now: Duration, told: Told) {
        self.told.push_back((now + self.latency, told));
    }
}

/// The bytes that bind a data connection.
pub(super) fn bind_request(number: u64) -> [u8; BIND_LEN] {
    number.to_le_bytes()
}
