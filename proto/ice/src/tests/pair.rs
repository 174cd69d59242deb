//! Two agents with their drivers, in a virtual network and virtual time.
//!
//! The drivers do what a node does: connect, accept, find the agent by the first frame's ufrag, read exact lengths, and hand
//! the raw connection over. Once selected, each side writes its own raw bytes at once.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    driver::{Driver, Ended},
    network::{Core, Network},
    relay::{Families, Relay},
    rng::Rng,
    topology::{Gathered, Topology},
};
use crate::{
    Agent, AgentOptions, Config, Credentials, Description, LocalCandidate, Mapping, PairReport, Role, Signal, Stream,
    candidate::{Candidate, CandidateKind, TcpType},
};

/// How signals travel from agent to agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signalling {
    /// One way.
    pub(super) latency: Duration,
    /// At most this much more; the order stays.
    pub(super) jitter: Duration,
    /// After so many signals, descriptions not counted, nothing gets through.
    pub(super) breaks_after: Option<usize>,
}

/// A scene, and how it is run.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) topology: Topology,
    pub(super) core: Core,
    pub(super) signalling: Signalling,
    pub(super) seed: u64,
    pub(super) config: Config,
    pub(super) roles: [Role; 2],
    /// Candidates that are signalled later than the description, and when.
    pub(super) trickle: Option<Duration>,
    /// The password that the second side is wrongly told.
    pub(super) wrong_password: bool,
    /// The first side's host does not answer anything.
    pub(super) silent: bool,
    /// In a scene of the relayed stream: what each side has for it.
    pub(super) relaying: Option<[Relaying; 2]>,
    /// How long relays take to let somebody in, once they have been asked.
    pub(super) permissions_take: Duration,
}

/// What a side has for the relayed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relaying {
    pub(super) relay: Option<Families>,
    /// It does not show its own addresses.
    pub(super) only: bool,
}

impl Scene {
    /// A scene with this delay from side to side. Signals take half as long again, through the same routers as all else.
    pub(super) fn new(topology: Topology, latency: Duration) -> Self {
        Self {
            topology,
            core: Core { hops: 2, latency, jitter: Duration::ZERO, loss_one_in: 0 },
            signalling: Signalling {
                latency: latency * 3 / 2 + Duration::from_millis(1),
                jitter: Duration::ZERO,
                breaks_after: None,
            },
            seed: 1,
            config: Config::default(),
            roles: [Role::Controlling, Role::Controlled],
            trickle: None,
            wrong_password: false,
            silent: false,
            relaying: None,
            permissions_take: Duration::ZERO,
        }
    }

    /// A scene of the relayed stream.
    pub(super) fn relayed(topology: Topology, latency: Duration, relaying: [Relaying; 2]) -> Self {
        Self { relaying: Some(relaying), ..Self::new(topology, latency) }
    }

    /// When all must have ended: each side counts from when it knows the other's description.
    pub(super) fn deadline(&self) -> Duration {
        let round_trip = self.signalling.latency * 2;
        let started = (self.signalling.latency + self.signalling.jitter) * 2;
        started + self.config.deadline + self.config.deadline_round_trips * round_trip
    }

    pub(super) fn run(&self) -> Outcome {
        let mut pair = TwoAgents::new(self);
        pair.run(self);
        pair.judge(self)
    }
}

/// How a negotiation ended.
pub(super) struct Outcome {
    pub(super) ended: [Ended; 2],
    /// When the later side ended.
    pub(super) took: Duration,
    pub(super) pairs: [Vec<PairReport>; 2],
    /// What would be wrong in any scene.
    pub(super) faults: Vec<String>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?} after {:?}, faults {:?}", self.ended, self.took, self.faults)?;
        for (side, pairs) in self.pairs.iter().enumerate() {
            for PairReport { local, remote, state, attempts, took } in pairs {
                writeln!(
                    f,
                    "  side {side}: {:?} {:?} {} → {:?} {:?} {}: {state:?}, {attempts} attempts, {took:?}",
                    local.kind, local.tcp_type, local.addr, remote.kind, remote.tcp_type, remote.addr
                )?;
            }
        }
        Ok(())
    }
}

/// A message on the signalling channel.
#[derive(Debug, Clone)]
enum Message {
    Description(Box<Description>),
    Signal(Signal),
}

pub(super) struct TwoAgents {
    net: Network,
    sides: [Driver; 2],
    start: Instant,
    now: Duration,
    rng: Rng,
    signals: [VecDeque<(Duration, Message)>; 2],
    signalled: usize,
    /// Candidates that each side learns of later.
    late: Option<Duration>,
}

impl TwoAgents {
    fn new(scene: &Scene) -> Self {
        let (mut net, gathered) = scene.topology.build(scene.core, scene.seed);
        let start = start();
        let mut rng = Rng::new(scene.seed);
        let mut number = 0;
        let sides = gathered.map(|mut gathered| {
            let (name, role) = ([b'a', b'b'][number], scene.roles[number]);
            let ips = gathered.candidates.iter().map(|known| known.base.ip()).collect();
            let relaying = scene.relaying.map(|relaying| relaying[number]);
            let relay = relaying.and_then(|relaying| {
                let families = relaying.relay?;
                let latency = scene.core.latency;
                let mut relay = Relay::new(&mut net, u8::try_from(number).unwrap(), families, latency);
                relay.permissions_take = scene.permissions_take;
                Some(relay)
            });
            if let Some(relaying) = relaying {
                gathered.options = AgentOptions { stream: Stream::Relayed, mapping: Mapping::Unknown, opening: false };
                gathered.candidates = relayed_candidates(&mut net, &gathered, relaying, relay.as_ref());
            }
            number += 1;
            let agent = Agent::new(scene.config.clone(), role, credentials(name), gathered.options, rng.bytes(), start);
            let mut driver = Driver::new(name, agent, gathered, start);
            (driver.relay, driver.ips) = (relay, ips);
            driver
        });
        if scene.silent {
            net.stack(sides[0].host).silent = true;
        }
        Self {
            net,
            sides,
            start,
            now: Duration::ZERO,
            rng,
            signals: Default::default(),
            signalled: 0,
            late: scene.trickle,
        }
    }

    fn run(&mut self, scene: &Scene) {
        for side in 0..2 {
            let driver = &mut self.sides[side];
            driver.agent.set_round_trip(self.start, scene.signalling.latency * 2);
            let now_known = if scene.trickle.is_some() { 1 } else { driver.candidates.len() };
            let early: Vec<_> = driver.candidates.drain(..now_known.min(driver.candidates.len())).collect();
            driver.agent.add_local_candidates(self.start, &early, scene.trickle.is_none());
            let mut description = driver.agent.description();
            if scene.wrong_password && side == 0 {
                description.password = "anotherPasswordOfEnoughLength".to_owned();
            }
            // The callee answers what the caller has told.
            self.now = scene.signalling.latency * u32::try_from(side).unwrap();
            self.signal(scene, side, Message::Description(Box::new(description)));
            self.drain(scene, side);
        }
        self.now = Duration::ZERO;
        let limit = scene.deadline() + Duration::from_secs(30);
        while let Some(at) = self.next_at().filter(|at| *at <= limit) {
            self.step(scene, at);
        }
    }

    fn next_at(&self) -> Option<Duration> {
        let signals = self.signals.iter().filter_map(|queue| queue.front().map(|(at, _)| *at));
        let timeouts = self.sides.iter().filter_map(|side| side.agent.poll_timeout());
        let timeouts = timeouts.map(|at| at.saturating_duration_since(self.start));
        let relays = self.sides.iter().filter_map(|side| side.relay.as_ref()?.next_at());
        signals.chain(timeouts).chain(self.net.next_at()).chain(relays).chain(self.late).min()
    }

    fn step(&mut self, scene: &Scene, at: Duration) {
        self.now = self.now.max(at);
        self.net.advance(self.now);
        let now = self.start + self.now;
        for side in 0..2 {
            if let Some(relay) = &mut self.sides[side].relay {
                relay.advance(&mut self.net, self.now);
                self.sides[side].hear_relay(&mut self.net, now);
                self.drain(scene, side);
            }
            while let Some(event) = self.net.poll_event(self.sides[side].host) {
                self.sides[side].take(&mut self.net, now, event);
                self.drain(scene, side);
            }
            while self.signals[side].front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, message) = self.signals[side].pop_front().unwrap();
                match &message {
                    Message::Description(description) => self.sides[side].permit(now, &description.candidates),
                    Message::Signal(Signal::Candidates { candidates, .. }) => self.sides[side].permit(now, candidates),
                    Message::Signal(_) => {}
                }
                let agent = &mut self.sides[side].agent;
                let result = match message {
                    Message::Description(description) => agent.set_remote(now, *description),
                    Message::Signal(signal) => agent.handle_signal(now, signal),
                };
                if let Err(error) = result {
                    self.sides[side].faults.push(format!("refused a signal: {error}"));
                }
                self.drain(scene, side);
            }
            if self.sides[side].agent.poll_timeout().is_some_and(|at| at <= now) {
                self.sides[side].agent.handle_timeout(now);
                self.drain(scene, side);
            }
            if self.sides[side].agent.poll_timeout().is_some_and(|at| at <= now) {
                self.sides[side].fault_once("a timeout does not go on");
                self.now += Duration::from_millis(1);
            }
        }
        if self.late.is_some_and(|at| at <= self.now) {
            self.late = None;
            for side in 0..2 {
                let late = std::mem::take(&mut self.sides[side].candidates);
                self.sides[side].agent.add_local_candidates(now, &late, true);
                self.drain(scene, side);
            }
        }
    }

    fn drain(&mut self, scene: &Scene, side: usize) {
        let now = self.start + self.now;
        self.sides[side].drain(&mut self.net, now);
        for signal in std::mem::take(&mut self.sides[side].outbox) {
            self.signal(scene, side, Message::Signal(signal));
        }
        // What arrived while the connection was handed over may be raw bytes by now.
        self.sides[side].read_raw();
    }

    fn signal(&mut self, scene: &Scene, from: usize, message: Message) {
        if let Message::Signal(_) = message {
            self.signalled += 1;
            if scene.signalling.breaks_after.is_some_and(|limit| self.signalled > limit) {
                return;
            }
        }
        let jitter = self.rng.below(u64::try_from(scene.signalling.jitter.as_nanos()).unwrap() + 1);
        let at = self.now + scene.signalling.latency + Duration::from_nanos(jitter);
        let queue = &mut self.signals[1 - from];
        let at = queue.back().map_or(at, |(earlier, _)| at.max(*earlier));
        queue.push_back((at, message));
    }

    fn judge(mut self, scene: &Scene) -> Outcome {
        let mut faults = Vec::new();
        for side in 0..2 {
            let driver = &mut self.sides[side];
            faults.extend(driver.faults.drain(..).map(|fault| format!("side {side}: {fault}")));
            let open = self.net.stack(driver.host).open_sockets();
            let expected = usize::from(matches!(driver.ended, Ended::Selected(..)));
            if open > expected {
                faults.push(format!("side {side}: {open} sockets are left"));
            }
            if driver.agent.counters().attempts > scene.config.max_attempts as u64 {
                faults.push(format!("side {side}: too many attempts"));
            }
            if driver.most_sockets > scene.config.max_conns + scene.config.max_unproven {
                faults.push(format!("side {side}: {} sockets at once", driver.most_sockets));
            }
        }
        for (side, peer) in [(0, 1), (1, 0)] {
            if let (Ended::Selected(..), Ended::Selected(..)) = (&self.sides[side].ended, &self.sides[peer].ended) {
                let expected = self.sides[peer].raw_bytes();
                if self.sides[side].raw != expected {
                    let got = String::from_utf8_lossy(&self.sides[side].raw);
                    faults.push(format!("side {side}: not the peer's raw bytes but {got:?}"));
                }
            }
        }
        let took = self.sides.iter().map(|side| side.ended_at).max().flatten().unwrap_or(self.now);
        let [a, b] = self.sides;
        Outcome { took, pairs: [a.agent.pairs(), b.agent.pairs()], ended: [a.ended, b.ended], faults }
    }
}

/// What a side gathers for the relayed stream: addresses at its relay, and those from which it connects.
fn relayed_candidates(
    net: &mut Network,
    gathered: &Gathered,
    relaying: Relaying,
    relay: Option<&Relay>,
) -> Vec<LocalCandidate> {
    let discard = |addr: SocketAddr| SocketAddr::new(addr.ip(), 9);
    let local =
        |kind, tcp_type, addr, base| LocalCandidate { candidate: Candidate::new(kind, tcp_type, addr, 1), base };
    let mut found = Vec::new();
    for relayed in relay.iter().flat_map(|relay| relay.relayed()) {
        found.push(local(CandidateKind::Relayed, TcpType::Passive, relayed, relayed));
        found.push(local(CandidateKind::Relayed, TcpType::Active, discard(relayed), relayed));
    }
    let hosts = gathered.candidates.iter().filter(|known| known.candidate.kind == CandidateKind::Host);
    for host in hosts.filter(|known| known.candidate.tcp_type == TcpType::Active && !relaying.only) {
        found.push(*host);
        let stun = SocketAddr::from(([192, 0, 2, 1], 3478));
        let server = relay.map_or(stun, |relay| relay.server(host.base.is_ipv4()));
        let mapped = (host.base.is_ipv4() == server.is_ipv4()).then(|| net.reflexive(gathered.host, host.base, server));
        if let Some(mapped) = mapped.flatten().filter(|mapped| *mapped != host.base) {
            found.push(local(CandidateKind::ServerReflexive, TcpType::Active, discard(mapped), host.base));
        }
    }
    found
}

/// Only differences count: any moment will do.
#[allow(clippy::disallowed_methods)]
pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn credentials(name: u8) -> Credentials {
    let name = char::from(name);
    Credentials { ufrag: format!("ufrag{name}"), password: format!("passwordOfSide{name}ofEnoughLength") }
}
