//! Finds nodes and makes sessions with them: by the user's hints, by the addresses in their offers, and by calling them,
//! all at once. The first session wins.
//!
//! What it is not: the DHT, the racing of addresses, the handshake or the negotiation; it puts them together.

mod directly;
mod error;
mod offers;
mod providers;
mod reaching;
mod search;
mod twins;

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use keyferry_proto::{dialling::Sought, identity::NodeKey};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};

pub use self::error::{FindError, OfferTime};
use self::{
    error::Tried,
    offers::{FoundOffer, Ways, ways_to},
};
pub(crate) use self::{
    search::{MissedTry, SearchBoard, SearchState, SearchTries, SoughtProviders},
    twins::OwnNumbers,
};
use super::{dialling::Dialler, sessions::Sessions, trace::Trace};
use crate::{
    connect::{
        caller::{Caller, CircuitToCall, MAX_CIRCUITS},
        signalling::CallError,
        trace::StageName,
    },
    net::{
        path::{AddressPolicy, Admitted, PathScope, RelayMode},
        port::Port,
        session::{InboundStreams, Session, SessionError, SessionTls},
    },
    reach::rendezvous::Rendezvous,
};

/// How long it may take to find a node and connect to it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Round trips of the signalling that a try may take in addition, once its call was answered: two turns of opening each way, and as many
/// for what is lost on the way.
const MORE_ROUND_TRIPS: u32 = 12;
/// How long the call waits while addresses of this network are dialled: as a rule they answer within that time, or never.
const NEAR_HEAD_START: Duration = Duration::from_millis(50);
/// How long to look for a newer offer after the first one led nowhere: the node may just have restarted.
const OUTDATED_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait from one look to the next.
const OUTDATED_PAUSE: Duration = Duration::from_millis(500);
/// How long dialled addresses may still answer after the call has shown that there is no other way: the negotiation has tried
/// them as well.
const LAST_CHANCE: Duration = Duration::from_millis(200);
/// Addresses that a name in a hint may stand for.
const MAX_RESOLVED: usize = 8;

/// Finds nodes and providers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Finder {
    pub(crate) port: Arc<Port>,
    pub(crate) dialler: Dialler,
    pub(crate) relay_mode: RelayMode,
    pub(crate) tls: Arc<SessionTls>,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) caller: Caller,
    pub(crate) sessions: Sessions,
    /// What to do with streams that the other side of a session opens.
    pub(crate) on_session: Arc<dyn Fn(Session, InboundStreams) + Send + Sync>,
}

/// What a race is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Any session with the node.
    Any,
    /// A session without a relay in between; there is one by a relay already.
    Direct,
}

/// How one way to a node has ended.
enum WayEnd {
    Reached(Session),
    NotDialled(SessionError),
    NotCalled(CallError),
}

impl Finder {
    /// Gives a session with a node: one that stands, or a new one by the first way that leads there.
    pub(crate) async fn connect(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        trace: &Trace,
    ) -> Result<Session, FindError> {
        let (began, board) = (Instant::now(), SearchBoard::default());
        loop {
            let mut tried = Tried::default();
            match self.try_once(node, hints, trace, &board, &mut tried).await? {
                Some(session) => return Ok(session),
                None if tried.may_be_outdated() && began.elapsed() < OUTDATED_PATIENCE => {
                    tracing::debug!("looking for a newer offer");
                    sleep(OUTDATED_PAUSE).await;
                }
                None => return Err(tried.into_error(node).unwrap_or_else(|| self.no_offer(node))),
            }
        }
    }

    /// Gives a session that stands, or tries all ways once. None if nobody was reached; then `tried` has the reasons, if anything
    /// was tried.
    async fn try_once(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        trace: &Trace,
        board: &SearchBoard,
        tried: &mut Tried,
    ) -> Result<Option<Session>, FindError> {
        // Before anything else, so as not to miss one that the node makes meanwhile.
        let arrival = pin!(self.sessions.arrival(node));
        if let Some(session) = self.sessions.alive(&node).await {
            trace.doing(|| format!("using a session with {} that stands already", node.short()));
            return Ok(Some(session));
        }
        tokio::select! {
            raced = self.race_to(node, hints, Goal::Any, trace, board, tried) => raced,
            session = arrival => Ok(Some(session)),
            () = self.end_of_try(&node, CONNECT_DEADLINE) => Ok(None),
        }
    }

    /// Waits until a try has taken too long. Once a call was answered it goes on for some round trips, which are long on a long way.
    async fn end_of_try(&self, node: &NodeKey, deadline: Duration) {
        sleep(deadline).await;
        if let Some(round_trip) = self.negotiates_with(node) {
            sleep(round_trip * MORE_ROUND_TRIPS).await;
        }
    }

    /// None if nobody was reached; then `tried` has the reasons, if anything was tried.
    async fn race_to(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        goal: Goal,
        trace: &Trace,
        board: &SearchBoard,
        tried: &mut Tried,
    ) -> Result<Option<Session>, FindError> {
        let began = Instant::now();
        let policy = AddressPolicy::for_listeners(self.port.local_addrs())?;
        let (circuits, mut race) = self.start_race(node, hints, goal, &policy, trace).await;
        let mut circuits = Some(circuits);
        let mut offers = ways_to(&self.rendezvous, node, self.relay_mode);
        let mut verdict = None;
        loop {
            tokio::select! {
                Some(ended) = race.running.next() => match ended {
                    WayEnd::Reached(session) => return Ok(Some(session)),
                    WayEnd::NotDialled(error) => tried.dial = Some(error),
                    WayEnd::NotCalled(CallError::NowhereToCall) => {}
                    WayEnd::NotCalled(error) => {
                        if error.is_final() {
                            verdict = Some(tokio::time::Instant::now() + LAST_CHANCE);
                            circuits = None;
                        }
                        tried.call = Some(error);
                    }
                },
                offer = offers.recv(), if circuits.is_some() => match (offer, &circuits) {
                    (Some(FoundOffer::OtherVersion(got)), _) => tried.other_version = Some(got),
                    (Some(FoundOffer::Ways(ways)), Some(circuits)) => {
                        tried.had_offer = true;
                        tried.off_time = ways.off_time;
                        board.opened_offer(ways.sequence);
                        let (fresh, near) = race.take_new(ways, &policy);
                        if let Some(detail) = fresh.in_words() {
                            trace.stage(StageName::Offer, began.elapsed(), detail);
                        }
                        if !fresh.passive.is_empty() {
                            let admitted = policy.admit(&fresh.passive, &[]);
                            race.running.push(self.dial(admitted, policy.clone(), node, trace.clone()).boxed());
                        }
                        let head_start = if near { NEAR_HEAD_START } else { Duration::ZERO };
                        for addr in fresh.circuits {
                            // If the queue is full, there are more than would be tried.
                            let _ = circuits.try_send(CircuitToCall { addr, not_before: Instant::now() + head_start });
                        }
                    }
                    _ => circuits = None,
                },
                () = sleep_until(verdict.unwrap_or_else(tokio::time::Instant::now)), if verdict.is_some() => {
                    return Ok(None);
                }
            }
            if circuits.is_none() && race.running.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn start_race<'a>(
        &'a self,
        node: NodeKey,
        hints: &[Multiaddr],
        goal: Goal,
        policy: &AddressPolicy,
        trace: &'a Trace,
    ) -> (mpsc::Sender<CircuitToCall>, Race<'a>) {
        let hinted = resolve_hints(hints, self.relay_mode).await;
        let race = Race {
            running: FuturesUnordered::new(),
            dialled: hinted.iter().copied().collect(),
            called: HashSet::new(),
        };
        if !hinted.is_empty() {
            let admitted = policy.admit(&[], &hinted);
            race.running.push(self.dial(admitted, policy.clone(), node, trace.clone()).boxed());
        }
        let (circuits, to_call) = mpsc::channel(MAX_CIRCUITS);
        race.running.push(self.call(node, goal, to_call, policy.clone(), trace).boxed());
        (circuits, race)
    }

    async fn dial(&self, admitted: Admitted, policy: AddressPolicy, node: NodeKey, trace: Trace) -> WayEnd {
        let began = Instant::now();
        match self
            .attempt(admitted, policy, Sought::Node(node), |session| {
                let remote = session.path().remote;
                trace.stage(StageName::Tls, began.elapsed(), format!("dialled {remote}, and proven to be the node"));
            })
            .await
        {
            Ok(session) => WayEnd::Reached(session),
            Err(error) => {
                if matches!(error, SessionError::AllFailed { .. }) {
                    trace.stage(StageName::Tls, began.elapsed(), error.to_string());
                }
                WayEnd::NotDialled(error)
            }
        }
    }

    async fn attempt(
        &self,
        admitted: Admitted,
        policy: AddressPolicy,
        sought: Sought,
        reached: impl FnOnce(&Session),
    ) -> Result<Session, SessionError> {
        let (session, inbound) = Session::connect(&self.dialler, &admitted, &policy, &self.tls, sought).await?;
        reached(&session);
        (self.on_session)(session.clone(), inbound);
        Ok(session)
    }

    async fn call(
        &self,
        node: NodeKey,
        goal: Goal,
        circuits: mpsc::Receiver<CircuitToCall>,
        policy: AddressPolicy,
        trace: &Trace,
    ) -> WayEnd {
        let called = match goal {
            Goal::Any => self.caller.call(node, circuits, policy, trace).await,
            Goal::Direct => self.caller.call_direct(node, circuits, policy, trace).await,
        };
        match called {
            Ok((session, inbound)) => {
                (self.on_session)(session.clone(), inbound);
                WayEnd::Reached(session)
            }
            Err(error) => WayEnd::NotCalled(error),
        }
    }

    /// The signalling's round trip with a node that has answered a call, as long as a path to it is looked for.
    fn negotiates_with(&self, node: &NodeKey) -> Option<Duration> {
        self.caller.turns.negotiates_with(node)
    }

    fn no_offer(&self, node: NodeKey) -> FindError {
        let status = self.rendezvous.status();
        let status = status.borrow();
        let known_peers = status.wan_peers + status.lan_peers;
        let other_versions = status.other_versions.iter().copied().collect();
        let clock = status.clock.filter(|skew| skew.is_too_much());
        FindError::NoOffer { node, known_peers, other_versions, clock }
    }
}

/// The socket addresses that the user's hints stand for. Names are looked up, but not by a node that hides where it is: hints come from a
/// peer, and whoever serves the name would see which network asks for it.
async fn resolve_hints(hints: &[Multiaddr], relay_mode: RelayMode) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for hint in hints {
        let mut parts = hint.iter();
        match (parts.next(), parts.next()) {
            (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => addrs.push((ip, port).into()),
            (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port))) => addrs.push((ip, port).into()),
            (Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)), _) if !relay_mode.allows_direct() => {
                tracing::warn!("a hint with a name is left out: to look it up would show where this node is");
            }
            (Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)), Some(Protocol::Tcp(port))) => {
                match tokio::net::lookup_host((&*name, port)).await {
                    Ok(found) => addrs.extend(found.take(MAX_RESOLVED)),
                    Err(error) => tracing::warn!(%error, "the name in a hint was not resolved"),
                }
            }
            _ => tracing::warn!("a hint is not of the form /ip4/…/tcp/… and is left out"),
        }
    }
    addrs
}

/// The ways that are being tried, and what has been tried so far.
struct Race<'a> {
    running: FuturesUnordered<BoxFuture<'a, WayEnd>>,
    dialled: HashSet<SocketAddr>,
    called: HashSet<Multiaddr>,
}

impl Race<'_> {
    /// The ways that no earlier offer named, and whether one of them leads to this network.
    fn take_new(&mut self, mut ways: Ways, policy: &AddressPolicy) -> (Ways, bool) {
        ways.passive.retain(|addr| self.dialled.insert(*addr));
        ways.circuits.retain(|addr| self.called.insert(addr.clone()));
        let near = policy.admit(&ways.passive, &[]).addrs.iter().any(|addr| policy.scope(*addr) < PathScope::Internet);
        (ways, near)
    }
}

impl Ways {
    /// None if there is nothing in it.
    fn in_words(&self) -> Option<String> {
        let addrs = match self.passive.len() {
            1 => "1 address".to_owned(),
            count => format!("{count} addresses"),
        };
        match self.circuits.len() {
            0 if self.passive.is_empty() => None,
            0 => Some(format!("found, with {addrs}")),
            1 => Some(format!("found, with {addrs} and 1 node to call it through")),
            circuits => Some(format!("found, with {addrs} and {circuits} nodes to call it through")),
        }
    }
}
