//! The virtual network: hosts behind routers behind a core of several hops, with latency, loss and reordering, in virtual
//! time. One seed gives one run.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    nat::{Nat, NatKind, Verdict},
    rng::Rng,
    segment::{FULL_TTL, Segment},
    tcp::{Stack, TcpEvent, Tuple},
};
use crate::ConnectFailure;

/// One way over a local network.
const LAN_LATENCY: Duration = Duration::from_micros(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouterId(usize);

/// What lies between the outsides of all routers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Core {
    /// Routers on the way from one side to the other.
    pub(super) hops: u8,
    /// One way.
    pub(super) latency: Duration,
    /// At most this much more, by chance: segments overtake each other.
    pub(super) jitter: Duration,
    /// One segment in this many is lost; 0: none.
    pub(super) loss_one_in: u64,
}

#[derive(Debug)]
struct Host {
    addrs: Vec<IpAddr>,
    behind: Option<RouterId>,
    stack: Stack,
}

#[derive(Debug)]
struct Router {
    behind: Option<RouterId>,
    v4: Nat,
    v6: Nat,
}

/// Where a segment arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whereabouts {
    Host(HostId),
    Inside(RouterId),
    Outside(RouterId),
    Core,
}

#[derive(Debug)]
pub(super) struct Network {
    core: Core,
    rng: Rng,
    now: Duration,
    hosts: Vec<Host>,
    routers: Vec<Router>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    arrivals: BTreeMap<u64, (Whereabouts, Segment)>,
    sent: u64,
}

impl Network {
    pub(super) fn new(core: Core, seed: u64) -> Self {
        Self {
            core,
            rng: Rng::new(seed),
            now: Duration::ZERO,
            hosts: Vec::new(),
            routers: Vec::new(),
            queue: BinaryHeap::new(),
            arrivals: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Adds a router that translates IPv4 to `outer` as `v4` says and filters IPv6 as `v6` says.
    pub(super) fn add_router(&mut self, behind: Option<RouterId>, outer: IpAddr, v4: NatKind, v6: NatKind) -> RouterId {
        let first_port = u16::try_from(self.rng.below(60_000)).unwrap();
        self.routers.push(Router { behind, v4: Nat::new(v4, outer, first_port), v6: Nat::new(v6, outer, first_port) });
        RouterId(self.routers.len() - 1)
    }

    /// Adds a host that listens on `port`.
    pub(super) fn add_host(&mut self, behind: Option<RouterId>, addrs: &[IpAddr], port: u16) -> HostId {
        self.hosts.push(Host { addrs: addrs.to_vec(), behind, stack: Stack::new(port) });
        HostId(self.hosts.len() - 1)
    }

    pub(super) fn stack(&mut self, host: HostId) -> &mut Stack {
        &mut self.hosts[host.0].stack
    }

    /// Maps the outer port to the same port inside, on the router next to the host.
    pub(super) fn forward_port(&mut self, host: HostId, inner: SocketAddr) -> SocketAddr {
        let router = self.hosts[host.0].behind.expect("a router to ask");
        self.routers[router.0].v4.forward_port(inner.port(), inner)
    }

    /// The address that `server` would see of a connection from `base`, which stays open from now on; none when a firewall
    /// does not let it out.
    pub(super) fn reflexive(&mut self, host: HostId, base: SocketAddr, server: SocketAddr) -> Option<SocketAddr> {
        let (now, mut addr, mut behind) = (self.now, base, self.hosts[host.0].behind);
        while let Some(router) = behind {
            let syn = Segment::syn(addr, server, 0, FULL_TTL);
            match self.nat(router, base.is_ipv4()).outbound(now, syn) {
                Verdict::Forward(segment) => addr = segment.from,
                _ => return None,
            }
            behind = self.routers[router.0].behind;
        }
        Some(addr)
    }

    pub(super) fn connect(&mut self, host: HostId, tuple: Tuple, ttl: u8) -> Result<(), ConnectFailure> {
        let now = self.now;
        let result = self.stack(host).connect(now, tuple, ttl);
        self.flush(host);
        result
    }

    pub(super) fn write(&mut self, host: HostId, tuple: Tuple, data: &[u8]) {
        let now = self.now;
        self.stack(host).write(now, tuple, data);
        self.flush(host);
    }

    pub(super) fn close(&mut self, host: HostId, tuple: Tuple) {
        let now = self.now;
        self.stack(host).close(now, tuple);
        self.flush(host);
    }

    pub(super) fn abort(&mut self, host: HostId, tuple: Tuple) {
        self.stack(host).abort(tuple);
        self.flush(host);
    }

    /// When something happens next.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let retries = self.hosts.iter().filter_map(|host| host.stack.next_retry());
        retries.chain(self.queue.peek().map(|Reverse((at, _))| *at)).min()
    }

    /// Lets everything happen that is due until `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            for host in (0..self.hosts.len()).map(HostId) {
                let now = self.now;
                self.stack(host).retry(now);
                self.flush(host);
            }
            if let Some(Reverse((_, id))) = self.queue.peek().copied().filter(|Reverse((due, _))| *due <= self.now) {
                self.queue.pop();
                let (place, segment) = self.arrivals.remove(&id).unwrap();
                self.arrive(place, segment);
            }
        }
        self.now = self.now.max(now);
    }

    pub(super) fn poll_event(&mut self, host: HostId) -> Option<TcpEvent> {
        self.stack(host).poll_event()
    }

    fn flush(&mut self, host: HostId) {
        while let Some(segment) = self.stack(host).poll_outgoing() {
            let Host { behind, addrs, .. } = &self.hosts[host.0];
            // A host does not send from an address that it does not have.
            if addrs.contains(&segment.from.ip()) {
                self.send_from_inside(*behind, segment);
            }
        }
    }

    /// Sends a segment that is on the local network behind `router`, or on the core.
    fn send_from_inside(&mut self, router: Option<RouterId>, segment: Segment) {
        match (self.child(router, segment.to.ip()), router) {
            (Some(neighbour), Some(_)) => self.send(LAN_LATENCY, neighbour, segment),
            (_, Some(router)) => self.send(LAN_LATENCY, Whereabouts::Inside(router), segment),
            (_, None) => {
                let lost = self.core.loss_one_in > 0 && self.rng.one_in(self.core.loss_one_in);
                let jitter = self.rng.below(u64::try_from(self.core.jitter.as_nanos()).unwrap() + 1);
                if !lost {
                    self.send(self.core.latency + Duration::from_nanos(jitter), Whereabouts::Core, segment);
                }
            }
        }
    }

    fn send(&mut self, delay: Duration, place: Whereabouts, segment: Segment) {
        self.sent += 1;
        self.queue.push(Reverse((self.now + delay, self.sent)));
        self.arrivals.insert(self.sent, (place, segment));
    }

    fn arrive(&mut self, place: Whereabouts, segment: Segment) {
        match place {
            Whereabouts::Host(host) => {
                let now = self.now;
                self.stack(host).receive(now, segment);
                self.flush(host);
            }
            Whereabouts::Inside(router) => self.go_out(router, segment),
            Whereabouts::Outside(router) => self.come_in(router, segment),
            Whereabouts::Core => {
                if let (Some(ttl), Some(next)) = (hop(segment.ttl, self.core.hops), self.child(None, segment.to.ip())) {
                    self.arrive(next, Segment { ttl, ..segment });
                }
            }
        }
    }

    fn go_out(&mut self, router: RouterId, segment: Segment) {
        let Some(ttl) = hop(segment.ttl, 1) else { return };
        let (now, behind) = (self.now, self.routers[router.0].behind);
        let nat = self.nat(router, segment.to.is_ipv4());
        let turns_round = nat.outer == segment.to.ip();
        if turns_round && !nat.kind.hairpin {
            return;
        }
        match nat.outbound(now, Segment { ttl, ..segment }) {
            Verdict::Forward(segment) if turns_round => self.come_in(router, segment),
            Verdict::Forward(segment) => self.send_from_inside(behind, segment),
            Verdict::Answer(refusal) => self.send_inwards(router, refusal),
            Verdict::Drop => {}
        }
    }

    fn come_in(&mut self, router: RouterId, segment: Segment) {
        let (now, behind) = (self.now, self.routers[router.0].behind);
        match self.nat(router, segment.to.is_ipv4()).inbound(now, segment) {
            Verdict::Forward(segment) => {
                if let Some(ttl) = hop(segment.ttl, 1) {
                    self.send_inwards(router, Segment { ttl, ..segment });
                }
            }
            Verdict::Answer(refusal) if self.owns(router, refusal.to.ip()) => self.turn_back(router, refusal),
            Verdict::Answer(refusal) => self.send_from_inside(behind, refusal),
            Verdict::Drop => {}
        }
    }

    /// A refusal of something that turned round at the router goes back inside.
    fn turn_back(&mut self, router: RouterId, refusal: Segment) {
        let now = self.now;
        if let Verdict::Forward(refusal) = self.nat(router, refusal.to.is_ipv4()).inbound(now, refusal) {
            self.send_inwards(router, refusal);
        }
    }

    fn owns(&mut self, router: RouterId, addr: IpAddr) -> bool {
        addr.is_ipv4() && self.nat(router, true).outer == addr
    }

    fn send_inwards(&mut self, router: RouterId, segment: Segment) {
        if let Some(next) = self.child(Some(router), segment.to.ip()) {
            self.send(LAN_LATENCY, next, segment);
        }
    }

    fn nat(&mut self, router: RouterId, v4: bool) -> &mut Nat {
        let Router { v4: nat4, v6: nat6, .. } = &mut self.routers[router.0];
        if v4 { nat4 } else { nat6 }
    }

    /// What behind `router` (None: at the core) leads to this address.
    fn child(&self, router: Option<RouterId>, addr: IpAddr) -> Option<Whereabouts> {
        let host = self.hosts.iter().position(|host| host.behind == router && host.addrs.contains(&addr));
        host.map(|host| Whereabouts::Host(HostId(host))).or_else(|| {
            let leads = |id: &usize| {
                self.routers[*id].behind == router
                    && match addr {
                        IpAddr::V4(_) => self.routers[*id].v4.outer == addr,
                        IpAddr::V6(_) => self.child(Some(RouterId(*id)), addr).is_some(),
                    }
            };
            (0..self.routers.len()).find(leads).map(|id| Whereabouts::Outside(RouterId(id)))
        })
    }
}

/// The TTL after so many routers; none when it has run out.
fn hop(ttl: u8, hops: u8) -> Option<u8> {
    ttl.checked_sub(hops).filter(|left| *left > 0)
}
