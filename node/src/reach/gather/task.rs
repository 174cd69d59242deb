//! The task that gathers: it joins what its parts find, and publishes what has changed.
//!
//! What it is not: the parts; each has a file of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keyferry_ice::{Candidate, CandidateKind, LocalCandidate, MAX_SIGNALLED_CANDIDATES, Mapping, TcpType};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    GatherConfig, GatherError, Gathered, Gatherer, NetworkChange, Observation, PortMapping, hosts,
    interfaces::Interfaces, observers::Observers, port_mapping::MappedPort, reflexive,
};
use crate::{
    net::{
        port::Port,
        trouble::{Trouble, Troubles},
    },
    reach::rendezvous::{AddressScope, RendezvousStatus},
};

/// How long gathering goes on before it counts as complete; what comes later is a further candidate.
const GATHER_TIMEOUT: Duration = Duration::from_millis(1500);
/// How many hosts are to say from where this node comes; as long as fewer have, peers are asked by STUN.
const WANTED_OBSERVERS: usize = 3;

/// How long after a sign of trouble, or a change of addresses, further signs say nothing new: what they tell of is being made anew.
const DOUBT_PAUSE: Duration = Duration::from_secs(4);

/// Starts to gather for a port. `status` is that of the rendezvous on the same port; `troubles` are those of the whole node.
pub fn spawn(
    config: GatherConfig,
    port: Arc<Port>,
    status: watch::Receiver<RendezvousStatus>,
    troubles: &Troubles,
) -> Result<Gatherer, GatherError> {
    let hosts = hosts::addrs(port.local_addrs()).unwrap_or_default();
    let (gathered, gathered_receiver) = watch::channel(Gathered::default());
    let (changes, network) = watch::channel(NetworkChange::default());
    let mapping = config.port_mapping.then(|| MappedPort::start(port.local_addrs(), network.clone())).transpose()?;
    let task = GatherTask {
        observers: Observers::new(port.clone(), config.stun),
        mapping,
        hidden: config.hidden,
        fixed_port: config.fixed_port,
        port,
        departures: hosts.clone(),
        hosts,
        doubted_at: None,
        status,
        gathered,
        changes,
        complete_at: Instant::now() + GATHER_TIMEOUT,
    };
    task.publish();
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(task.run(troubles.hear(), ended));
    Ok(Gatherer { gathered: gathered_receiver, network, end, task })
}

struct GatherTask {
    port: Arc<Port>,
    /// The addresses at which the node listens.
    hosts: Vec<SocketAddr>,
    /// The addresses from which connections leave.
    departures: Vec<SocketAddr>,
    status: watch::Receiver<RendezvousStatus>,
    observers: Observers,
    mapping: Option<MappedPort>,
    hidden: bool,
    fixed_port: bool,
    /// When a sign of trouble was last acted upon.
    doubted_at: Option<Instant>,
    gathered: watch::Sender<Gathered>,
    changes: watch::Sender<NetworkChange>,
    complete_at: Instant,
}

impl GatherTask {
    async fn run(mut self, mut troubles: watch::Receiver<Option<Trouble>>, mut ended: oneshot::Receiver<()>) {
        let mut interfaces = Interfaces::new();
        let (mut has_rendezvous, mut has_troubles) = (true, true);
        loop {
            let is_complete = self.gathered.borrow().complete;
            tokio::select! {
                word = self.observers.next() => if let Some(word) = word { self.observers.take(word) },
                changed = self.status.changed(), if has_rendezvous => has_rendezvous = changed.is_ok(),
                () = interfaces.changed() => self.look_at_hosts(),
                told = troubles.changed(), if has_troubles => match told {
                    Ok(()) => self.on_trouble(),
                    Err(_) => has_troubles = false,
                },
                () = mapping_changed(self.mapping.as_mut()) => {}
                () = sleep_until(self.complete_at), if !is_complete => {}
                _ = &mut ended => break,
            }
            self.ask_peers();
            self.publish();
        }
        if let Some(mapping) = self.mapping {
            mapping.release().await;
        }
    }

    /// Compares the addresses of this machine with those that it had.
    fn look_at_hosts(&mut self) {
        let Ok(hosts) = hosts::addrs(self.port.local_addrs()) else { return };
        let added = ips_beyond(&hosts, &self.hosts);
        let removed = ips_beyond(&self.hosts, &hosts);
        self.hosts = hosts;
        if added.is_empty() && removed.is_empty() {
            return;
        }
        tracing::info!(added = added.len(), removed = removed.len(), "this machine's addresses have changed");
        tracing::debug!(?added, ?removed, "the addresses");
        self.begin_anew(!removed.is_empty(), added, removed);
    }

    /// Doubts the NATs on the way, and has others doubt what they hold, unless that was so a moment ago.
    fn on_trouble(&mut self) {
        let now = Instant::now();
        if self.doubted_at.is_some_and(|last| now.duration_since(last) < DOUBT_PAUSE) {
            return;
        }
        tracing::info!("what leads out of this machine may be dead; it is made anew");
        self.begin_anew(true, Vec::new(), Vec::new());
    }

    /// Asks all anew who have seen connections that may be gone, from a fresh port if need be; then tells the others.
    fn begin_anew(&mut self, is_port_used_up: bool, added: Vec<IpAddr>, removed: Vec<IpAddr>) {
        self.doubted_at = Some(Instant::now());
        if is_port_used_up
            && !self.fixed_port
            && let Err(error) = self.port.depart_afresh()
        {
            tracing::debug!(%error, "connections still leave from the port that they left from before");
        }
        self.departures = hosts::addrs(&self.port.departing_addrs()).unwrap_or_default();
        self.observers.network_changed(&self.departures);
        self.complete_at = Instant::now() + GATHER_TIMEOUT;
        self.publish();
        self.changes
            .send_modify(|change| *change = NetworkChange { generation: change.generation + 1, added, removed });
    }

    /// Where this node is on this machine: where connections leave first, then where else it listens.
    fn bases(&self) -> Vec<SocketAddr> {
        let others = self.hosts.iter().filter(|host| !self.departures.contains(host));
        self.departures.iter().chain(others).copied().collect()
    }

    /// Asks peers by STUN if too few hosts have said from where this node comes.
    fn ask_peers(&mut self) {
        let behind =
            self.hosts.iter().any(|host| host.is_ipv4() && AddressScope::of_ip(host.ip()) != Some(AddressScope::Wan));
        let unconnected = self.status.borrow().unconnected.clone();
        let observations = self.observations();
        for ipv4 in [true, false] {
            let known = observations.iter().filter(|known| known.observer.is_ipv4() == ipv4);
            // Without a NAT, one word is enough.
            let wanted = if ipv4 && behind { WANTED_OBSERVERS } else { 1 };
            let missing = wanted.saturating_sub(known.count());
            let peers: Vec<_> = unconnected.iter().copied().filter(|peer| peer.is_ipv4() == ipv4).collect();
            self.observers.ask_peers(&peers, missing);
        }
    }

    /// What others have said, one word for each host: that of a STUN server, on a connection that stands, before that of a
    /// libp2p peer.
    fn observations(&self) -> Vec<Observation> {
        let mut all: Vec<Observation> = Vec::new();
        let by_peers = self.status.borrow().observed.clone();
        let by_servers: Vec<Observation> = self.observers.observations().collect();
        for one in by_servers.into_iter().chain(by_peers) {
            let is_known = all
                .iter()
                .any(|other| other.observer.ip() == one.observer.ip() && other.local.is_ipv4() == one.local.is_ipv4());
            if !is_known && self.departures.contains(&one.local) {
                all.push(one);
            }
        }
        all
    }

    fn publish(&self) {
        let observations = self.observations();
        let port_mapping = self.mapping.as_ref().map_or(PortMapping::Off, MappedPort::state);
        let mapping = reflexive::mapping(&observations, &self.bases());
        let settled = self.observers.settled() && port_mapping != PortMapping::Asking && mapping != Mapping::Unknown;
        let gathered = Gathered {
            candidates: self.candidates(&observations, &port_mapping),
            mapping,
            complete: settled || Instant::now() >= self.complete_at,
            observations,
            stun: self.observers.reports(),
            port_mapping,
        };
        self.gathered.send_if_modified(|before| {
            let changed = *before != gathered;
            if changed {
                let (candidates, observations) = (gathered.candidates.len(), gathered.observations.len());
                tracing::debug!(mapping = ?gathered.mapping, candidates, observations, "what is gathered has changed");
            }
            *before = gathered;
            changed
        });
    }

    /// All candidates, those that every peer can use without the help of this side first.
    fn candidates(&self, observations: &[Observation], port_mapping: &PortMapping) -> Vec<LocalCandidate> {
        if self.hidden {
            return Vec::new();
        }
        let mut candidates = hosts::candidates(&self.hosts, &self.departures);
        candidates.extend(mapped_candidate(port_mapping));
        candidates.extend(reflexive::candidates(observations, &self.bases(), &self.status.borrow().external));
        candidates.truncate(MAX_SIGNALLED_CANDIDATES);
        candidates
    }
}

/// The router's port, unless the router is itself behind a NAT, where nobody could reach it.
fn mapped_candidate(state: &PortMapping) -> Option<LocalCandidate> {
    let PortMapping::Mapped { local, external, .. } = state else { return None };
    let is_far = AddressScope::of_ip(external.ip()) == Some(AddressScope::Wan);
    let candidate = Candidate::new(CandidateKind::PortMapped, TcpType::Passive, *external, 0);
    is_far.then_some(LocalCandidate { candidate, base: *local })
}

/// Resolves when the router's port has changed; never if nobody asks for one.
async fn mapping_changed(mapping: Option<&mut MappedPort>) {
    match mapping {
        Some(mapping) => mapping.changed().await,
        None => std::future::pending().await,
    }
}

fn ips_beyond(these: &[SocketAddr], those: &[SocketAddr]) -> Vec<IpAddr> {
    these.iter().filter(|addr| !those.contains(addr)).map(SocketAddr::ip).collect()
}
