//! Asking STUN servers over TCP from the node's own port: those that the user names, and peers that answer STUN.
//!
//! A connection stays up after the answer, because it holds the NAT's mapping and tells when that changes. It ends with the
//! address of this machine that it hangs on.
//!
//! What it is not: what the answers amount to; see `reflexive`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use keyferry_ice::ConnectFailure;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{MAX_STUN_SERVERS, Observation, StunReport, StunServer, StunState};
use crate::net::{
    port::Port,
    stun::{self, StunAskError},
};

/// Peers that are asked at a time.
const MAX_PEERS: usize = 4;
/// Peers that may be asked between two changes of the network.
const MAX_TRIED: usize = 32;
/// How often to use a standing connection, so that NATs on the way keep its mapping.
const HOLD_EVERY: Duration = Duration::from_secs(15);
/// How long to wait after a failure before a server is asked again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// Reports of the tasks that may wait.
const WORDS: usize = 64;

/// The servers and what they have said.
pub(super) struct Observers {
    port: Arc<Port>,
    named: BTreeMap<String, Named>,
    targets: BTreeMap<SocketAddr, StunTarget>,
    /// Peers that were asked since the last change of the network.
    tried: BTreeSet<SocketAddr>,
    words: mpsc::Sender<Word>,
    heard: mpsc::Receiver<Word>,
}

/// A server that the user named; its addresses become targets.
struct Named {
    server: StunServer,
    state: Option<StunState>,
    _task: AbortOnDropHandle<()>,
}

/// One address that is asked.
struct StunTarget {
    /// As the user named it; none for a peer.
    name: Option<String>,
    state: StunState,
    _task: AbortOnDropHandle<()>,
}

/// What a task has to say.
pub(super) enum Word {
    Resolved {
        name: String,
        addrs: Vec<SocketAddr>,
    },
    Unresolved {
        name: String,
        reason: String,
    },
    State {
        addr: SocketAddr,
        state: StunState,
    },
    /// The connection has ended, after it had told the address and stood for this time.
    Ended {
        addr: SocketAddr,
        stood: Duration,
    },
}

impl Observers {
    /// Starts to ask the named servers.
    pub(super) fn new(port: Arc<Port>, servers: Vec<StunServer>) -> Self {
        let (words, heard) = mpsc::channel(WORDS);
        let mut observers =
            Self { port, named: BTreeMap::new(), targets: BTreeMap::new(), tried: BTreeSet::new(), words, heard };
        servers.into_iter().take(MAX_STUN_SERVERS).for_each(|server| observers.name(server));
        observers
    }

    /// The next word of a task, for [`Self::take`]. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Word> {
        self.heard.recv().await
    }

    /// Takes a word of a task.
    pub(super) fn take(&mut self, word: Word) {
        match word {
            Word::Resolved { name, addrs } => {
                let Some(named) = self.named.get_mut(&name) else { return };
                named.state = None;
                for addr in addrs {
                    self.ask(addr, Some(name.clone()));
                }
            }
            Word::Unresolved { name, reason } => {
                if let Some(named) = self.named.get_mut(&name) {
                    named.state = Some(StunState::Failed { reason });
                }
            }
            Word::State { addr, state } => {
                let Some(target) = self.targets.get_mut(&addr) else { return };
                if target.name.is_none() && matches!(state, StunState::Failed { .. }) {
                    self.targets.remove(&addr);
                } else {
                    target.state = state;
                }
            }
            // The task of a named server asks it again, and what it has said holds until then.
            Word::Ended { addr, stood } => {
                if self.targets.get(&addr).is_some_and(|target| target.name.is_none()) {
                    self.targets.remove(&addr);
                    // Without this, a server that ends each connection at once would be asked without a pause.
                    if stood >= HOLD_EVERY {
                        self.tried.remove(&addr);
                    }
                }
            }
        }
    }

    /// Asks peers that were not asked before, so many that `wanted` answers are under way.
    pub(super) fn ask_peers(&mut self, peers: &[SocketAddr], wanted: usize) {
        for addr in peers {
            let of_peers = || self.targets.iter().filter(|(_, target)| target.name.is_none());
            let is_awaited = |target: &StunTarget| target.state == StunState::Asking;
            let same_family = |other: &SocketAddr| other.is_ipv4() == addr.is_ipv4();
            let awaited = of_peers().filter(|(other, target)| same_family(other) && is_awaited(target)).count();
            if awaited < wanted
                && of_peers().count() < MAX_PEERS
                && self.tried.len() < MAX_TRIED
                && !self.targets.contains_key(addr)
                && self.tried.insert(*addr)
            {
                self.ask(*addr, None);
            }
        }
    }

    /// Ends the connections that did not leave from one of these addresses, and asks anew where there is no answer.
    pub(super) fn network_changed(&mut self, departures: &[SocketAddr]) {
        self.tried.clear();
        let stands =
            |state: &StunState| matches!(state, StunState::Answered { local, .. } if departures.contains(local));
        self.targets.retain(|_, target| stands(&target.state));
        let mut lost: Vec<StunServer> = Vec::new();
        for (name, named) in &self.named {
            if !self.targets.values().any(|target| target.name.as_ref() == Some(name)) {
                lost.push(named.server.clone());
            }
        }
        lost.into_iter().for_each(|server| self.name(server));
    }

    /// What the servers have said.
    pub(super) fn observations(&self) -> impl Iterator<Item = Observation> {
        self.targets.iter().filter_map(|(addr, target)| match target.state {
            StunState::Answered { local, mapped, .. } => Some(Observation { observer: *addr, local, observed: mapped }),
            _ => None,
        })
    }

    /// What became of each.
    pub(super) fn reports(&self) -> Vec<StunReport> {
        let unresolved = self.named.iter().filter_map(|(name, named)| {
            Some(StunReport { server: name.clone(), addr: None, state: named.state.clone()? })
        });
        let asked = self.targets.iter().map(|(addr, target)| StunReport {
            server: target.name.clone().unwrap_or_else(|| addr.to_string()),
            addr: Some(*addr),
            state: target.state.clone(),
        });
        unresolved.chain(asked).collect()
    }

    /// Whether each has answered or failed.
    pub(super) fn settled(&self) -> bool {
        let states = self.targets.values().map(|target| &target.state);
        states
            .chain(self.named.values().filter_map(|named| named.state.as_ref()))
            .all(|state| *state != StunState::Asking)
    }

    fn name(&mut self, server: StunServer) {
        let name = server.to_string();
        let families = [true, false].map(|ipv4| self.port.local_addrs().iter().any(|addr| addr.is_ipv4() == ipv4));
        let task = tokio::spawn(resolve(server.clone(), families, self.words.clone()));
        let task = AbortOnDropHandle::new(task);
        self.named.insert(name, Named { server, state: Some(StunState::Asking), _task: task });
    }

    fn ask(&mut self, addr: SocketAddr, name: Option<String>) {
        let again = name.is_some();
        let task = tokio::spawn(keep_asking(self.port.clone(), addr, again, self.words.clone()));
        self.targets.insert(addr, StunTarget { name, state: StunState::Asking, _task: AbortOnDropHandle::new(task) });
    }
}

/// Looks a name up, again and again until it has addresses: one of each family that the node listens on.
async fn resolve(server: StunServer, [ipv4, ipv6]: [bool; 2], words: mpsc::Sender<Word>) {
    let name = server.to_string();
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match tokio::net::lookup_host((server.host.as_str(), server.port)).await {
            Ok(found) => {
                let found: Vec<SocketAddr> = found.collect();
                let first = |wanted: bool, family: fn(&SocketAddr) -> bool| {
                    found.iter().copied().find(|addr| wanted && family(addr))
                };
                let of_both = [first(ipv4, SocketAddr::is_ipv4), first(ipv6, SocketAddr::is_ipv6)];
                let addrs: Vec<SocketAddr> = of_both.into_iter().flatten().collect();
                if !addrs.is_empty() {
                    let _ = words.send(Word::Resolved { name, addrs }).await;
                    return;
                }
                "the name has no address that this node can reach".to_owned()
            }
            Err(error) => format!("the name is not found: {error}"),
        };
        if words.send(Word::Unresolved { name: name.clone(), reason }).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Asks a server, holds the connection for as long as it stands and, if `again`, makes a new one after that.
async fn keep_asking(port: Arc<Port>, addr: SocketAddr, again: bool, words: mpsc::Sender<Word>) {
    let say = |state| words.send(Word::State { addr, state });
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        match stun::ask(&port, addr).await {
            Ok(mut client) => {
                let (took, answered) = (started.elapsed(), Instant::now());
                loop {
                    let (local, mapped) = (client.local(), client.mapped());
                    if say(StunState::Answered { local, mapped, took }).await.is_err() {
                        return;
                    }
                    if let Err(error) = client.hold(HOLD_EVERY).await {
                        tracing::debug!(%error, "a STUN server's connection has ended");
                        let _ = words.send(Word::Ended { addr, stood: answered.elapsed() }).await;
                        break;
                    }
                }
                if answered.elapsed() >= HOLD_EVERY {
                    pause = FIRST_PAUSE;
                }
            }
            // Its last connection ended a moment ago, and what it has said still holds.
            Err(StunAskError::Connect(ConnectFailure::AddrInUse)) if pause > FIRST_PAUSE => {}
            Err(error) => {
                tracing::debug!(%error, "a STUN server has not answered");
                if say(StunState::Failed { reason: error.to_string() }).await.is_err() {
                    return;
                }
            }
        }
        if !again {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connect::{demux::stun::Front, ice::IceHost},
        net::port::IncomingConnections,
        reach::gather::Gathered,
    };

    async fn loopback() -> (Arc<Port>, IncomingConnections) {
        let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        (Arc::new(port), incoming)
    }

    /// A peer that answers STUN.
    async fn peer() -> (Arc<Port>, Front) {
        let (port, incoming) = loopback().await;
        let (_, gathered) = tokio::sync::watch::channel(Gathered::default());
        let front = Front::spawn(incoming.stun, IceHost::new(gathered, Default::default()), true, None, &port);
        (port, front)
    }

    async fn take_next(observers: &mut Observers) {
        let word = tokio::time::timeout(Duration::from_secs(10), observers.next()).await.expect("a word in time");
        observers.take(word.unwrap());
    }

    #[tokio::test]
    async fn a_peer_is_asked_from_the_nodes_port_and_forgotten_when_it_goes() {
        let (own, _incoming) = loopback().await;
        let (peer, front) = peer().await;
        let mut observers = Observers::new(own.clone(), Vec::new());
        observers.ask_peers(peer.local_addrs(), 1);
        assert!(!observers.settled());
        take_next(&mut observers).await;
        let seen: Vec<Observation> = observers.observations().collect();
        let here = own.local_addrs()[0];
        assert_eq!(seen, [Observation { observer: peer.local_addrs()[0], local: here, observed: here }]);
        assert!(observers.settled());

        let peer_addrs = peer.local_addrs().to_vec();
        drop((peer, front));
        take_next(&mut observers).await;
        assert_eq!(observers.observations().count(), 0);

        observers.ask_peers(&peer_addrs, 1);
        assert!(observers.targets.is_empty(), "its connection has stood too shortly");
    }

    #[tokio::test]
    async fn a_peer_whose_connection_has_stood_for_long_is_asked_again() {
        let (own, _incoming) = loopback().await;
        let (peer, _front) = peer().await;
        let addr = peer.local_addrs()[0];
        let mut observers = Observers::new(own, Vec::new());
        observers.ask_peers(&[addr], 1);

        observers.take(Word::Ended { addr, stood: HOLD_EVERY });
        observers.ask_peers(&[addr], 1);
        assert!(observers.targets.contains_key(&addr));
    }

    #[tokio::test]
    async fn peers_that_do_not_answer_are_asked_once_and_only_so_many() {
        let (own, _incoming) = loopback().await;
        let silent: Vec<SocketAddr> = (1..=200).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut observers = Observers::new(own, Vec::new());
        for _ in 0..100 {
            observers.ask_peers(&silent, 3);
            assert!(observers.targets.len() <= 3);
            if observers.targets.is_empty() {
                break;
            }
            take_next(&mut observers).await;
        }
        assert_eq!(observers.tried.len(), MAX_TRIED);
        assert!(observers.reports().is_empty());
    }
}
