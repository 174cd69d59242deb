//! Calling a node that no connection leads to: through a circuit of its offer, then ICE, then a session on the path that ICE
//! finds, direct or relayed.
//!
//! What it is not: the signalling (`crate::connect::signalling`) or the negotiation (`crate::connect::ice`); it joins them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use keyferry_ice::{Mapping, Role, Stream};
use keyferry_proto::identity::{NodeKey, NodeSecret};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until, timeout},
};

use super::{
    streams::{self, PathSearch, PeerEnd, StreamSettings},
    trace::Trace,
};
use crate::{
    connect::{
        acceptor::SessionHost,
        call_arbiter::{CallTurn, Turns},
        ice::{IceHost, Negotiation, RelayedNegotiation},
        signalling::{Call, CallError, FreeLine},
        trace::StageName,
    },
    net::{
        path::AddressPolicy,
        session::{InboundStreams, Session, SessionTls},
        trouble::{self, Trouble},
    },
    reach::{
        gather::Gathered,
        rendezvous::{CallOver, Rendezvous},
    },
};

/// Circuits that are tried to reach one node: those of two offers.
pub(crate) const MAX_CIRCUITS: usize = 8;
/// How long to wait for one circuit before trying the next one beside it, and after the last one the first again: if the node has
/// lost its connection to a relay without a word, a call waits there for nothing, and a later one arrives.
const NEXT_CIRCUIT_AFTER: Duration = trouble::LEAST_PATIENCE;
/// Lines that are being opened, or are open and wait for an answer, while a circuit is tried again.
const MAX_LINES: usize = 6;
/// How long a line that is open waits for this side to learn what its NAT does.
const MAPPING_PATIENCE: Duration = Duration::from_millis(300);
/// Negotiations to try with one node, if the first ends for a reason that may not hold for the next.
const MAX_NEGOTIATIONS: usize = 2;

/// How long to keep a direct session that comes while a relayed one is in use: whoever uses the relayed one has moved by then, or
/// has no need to.
const MOVE_PATIENCE: Duration = Duration::from_secs(5);

/// A circuit at which a node can be called.
#[derive(Debug)]
pub(crate) struct CircuitToCall {
    /// Its address.
    pub(crate) addr: Multiaddr,
    /// The first call waits for this moment.
    pub(crate) not_before: Instant,
}

/// Calls nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) rendezvous: Rendezvous,
    pub(crate) secret: NodeSecret,
    pub(crate) ice: Arc<IceHost>,
    pub(crate) gathered: watch::Receiver<Gathered>,
    pub(crate) tls: Arc<SessionTls>,
    pub(crate) turns: Turns,
    pub(crate) streams: StreamSettings,
    pub(crate) host: SessionHost,
}

/// The circuits that are known, and those to come.
struct Circuits {
    known: Vec<Multiaddr>,
    to_come: mpsc::Receiver<CircuitToCall>,
}

/// A call that was answered, with the negotiations that it is about.
struct Rung {
    call: Call,
    direct: Option<Negotiation>,
    relayed: Option<RelayedNegotiation>,
}

impl Caller {
    /// Calls a node at its circuits, as they become known, until there is a session or nowhere left to call.
    ///
    /// Returns the first session. If it is relayed, the search for a direct path goes on; if that finds one, its session is
    /// listed and kept for a while: whoever uses the relayed one may move.
    pub(crate) async fn call(
        &self,
        node: NodeKey,
        to_come: mpsc::Receiver<CircuitToCall>,
        policy: AddressPolicy,
        trace: &Trace,
    ) -> Result<(Session, InboundStreams), CallError> {
        self.call_for(node, to_come, policy, trace, &self.streams).await
    }

    /// The same for the direct stream only, such as while a relayed session is in use. A node that hides its address does not
    /// call for that.
    pub(crate) async fn call_direct(
        &self,
        node: NodeKey,
        to_come: mpsc::Receiver<CircuitToCall>,
        policy: AddressPolicy,
        trace: &Trace,
    ) -> Result<(Session, InboundStreams), CallError> {
        if !self.streams.mode.allows_direct() {
            return Err(CallError::NowhereToCall);
        }
        self.call_for(node, to_come, policy, trace, &self.streams.direct_only()).await
    }

    async fn call_for(
        &self,
        node: NodeKey,
        mut to_come: mpsc::Receiver<CircuitToCall>,
        policy: AddressPolicy,
        trace: &Trace,
        streams: &StreamSettings,
    ) -> Result<(Session, InboundStreams), CallError> {
        let CircuitToCall { addr, not_before } = to_come.recv().await.ok_or(CallError::NowhereToCall)?;
        sleep_until(not_before.into()).await;
        let mut circuits = Circuits { known: vec![addr], to_come };
        let mut tries = 0;
        loop {
            let turn = Arc::new(self.turns.to_call(node).await);
            let error = tokio::select! {
                ended = self.try_once(node, &mut circuits, &policy, trace, streams, &turn) => match ended {
                    Ok(session) => return Ok(session),
                    Err(error) => error,
                },
                // The node calls this one. If that leads to a session, nobody waits for this call any more.
                () = turn.superseded.cancelled() => continue,
            };
            tries += 1;
            if tries == MAX_NEGOTIATIONS || !error.may_pass() {
                return Err(error);
            }
            tracing::debug!(%error, "calling once more");
        }
    }

    async fn try_once(
        &self,
        node: NodeKey,
        circuits: &mut Circuits,
        policy: &AddressPolicy,
        trace: &Trace,
        streams: &StreamSettings,
        turn: &Arc<CallTurn>,
    ) -> Result<(Session, InboundStreams), CallError> {
        trace.doing(|| format!("calling {}", node.short()));
        let began = Instant::now();
        let rung = self.ring(node, circuits, streams).await;
        let Rung { call, direct, relayed } =
            rung.inspect_err(|error| trace.stage(StageName::Signalling, began.elapsed(), error.to_string()))?;
        turn.answered(call.round_trip());
        trace.stage(StageName::Signalling, began.elapsed(), format!("answered{}", through(&call.via)));
        trace.doing(|| format!("looking for a path to {}", node.short()));
        let peer = PeerEnd::Callee(node);
        let mut search = PathSearch::new((direct, relayed), call, policy, peer, &self.tls, streams.mode);
        let mut setback: Option<CallError> = None;
        while let Some(outcome) = search.next().await {
            search.tell_of_relays(trace);
            outcome.tell(trace);
            match outcome.result {
                Ok((session, inbound)) => {
                    if outcome.stream == Stream::Relayed && search.looks_for_direct() {
                        self.go_on_looking(search, &session, Arc::clone(turn));
                    }
                    return Ok((session, inbound));
                }
                Err(error) => {
                    setback = Some(match setback.take() {
                        Some(earlier) => earlier.and(error),
                        None => error,
                    });
                }
            }
        }
        Err(setback.unwrap_or(CallError::Ended))
    }

    /// Goes on looking for a direct path while a relayed session stands.
    fn go_on_looking(&self, mut search: PathSearch, relayed: &Session, turn: Arc<CallTurn>) {
        let (host, ended) = (self.host.clone(), relayed.closed());
        self.host.tasks.spawn(async move {
            // If it ends without a direct path, the search tells the relayed session why.
            let outcome = tokio::select! {
                outcome = search.next() => outcome,
                // Nobody needs the node any more; or it calls this one.
                _ = ended => None,
                () = turn.superseded.cancelled() => None,
                () = host.cancel.cancelled() => None,
            };
            drop((search, turn));
            if let Some(Ok((session, inbound))) = outcome.map(|outcome| outcome.result) {
                tracing::info!(path = %session.path(), "a direct path was found, which takes the place of a relayed one");
                host.keep(session.clone(), inbound);
                // This handle keeps the session up until others have theirs.
                host.cancel.run_until_cancelled(sleep(MOVE_PATIENCE)).await;
            }
        });
    }

    /// Opens lines through one circuit after the other, and calls on the first that is open, until somebody answers.
    async fn ring(&self, node: NodeKey, circuits: &mut Circuits, streams: &StreamSettings) -> Result<Rung, CallError> {
        // Relays are asked at once, since their answers take longest.
        let mut relayed = streams.begin_relayed(&self.ice, Role::Controlling)?;
        let mut lines = FuturesUnordered::new();
        let (mut next, mut next_at) = (0, Instant::now());
        let (mut more_to_come, mut last_error) = (true, CallError::Ended);
        loop {
            tokio::select! {
                Some((line, circuit)) = lines.next() => match self.ring_on(line, node, streams, relayed.as_ref()).await {
                    Ok((call, direct)) => return Ok(Rung { call, direct, relayed: relayed.take() }),
                    Err(error) if error.is_unanswered() => {
                        tracing::debug!(%error, "a call was not answered");
                        if matches!(error, CallError::TimedOut) {
                            self.tls.troubles().tell(Trouble::UnansweredCall);
                        }
                        // A node that hides its address takes no call over a connection that shows it.
                        if let Some(circuit) = circuit {
                            lines.push(self.open_line(circuit, CallOver::Circuit));
                        }
                        last_error = error;
                        if next < circuits.known.len() {
                            next_at = Instant::now();
                        }
                    }
                    Err(error) => return Err(error),
                },
                () = sleep_until(next_at.into()),
                    if next < circuits.known.len() || (1..MAX_LINES).contains(&lines.len()) => {
                    let circuit = circuits.known[next % circuits.known.len()].clone();
                    lines.push(self.open_line(circuit, CallOver::Any));
                    next += 1;
                    next_at = Instant::now() + NEXT_CIRCUIT_AFTER;
                }
                more = circuits.to_come.recv(), if more_to_come && circuits.known.len() < MAX_CIRCUITS => match more {
                    Some(circuit) => circuits.known.push(circuit.addr),
                    None => more_to_come = false,
                },
            }
            let may_come = more_to_come && circuits.known.len() < MAX_CIRCUITS;
            if lines.is_empty() && next >= circuits.known.len() && !may_come {
                return Err(last_error);
            }
        }
    }

    /// Opens a line, and says which circuit has not been tried if it goes over another connection.
    async fn open_line(&self, circuit: Multiaddr, over: CallOver) -> (Result<FreeLine, CallError>, Option<Multiaddr>) {
        let line = FreeLine::open(&self.rendezvous, &circuit, over).await;
        let untried = line.as_ref().is_ok_and(|line| !line.is_circuit());
        (line, untried.then_some(circuit))
    }

    async fn ring_on(
        &self,
        line: Result<FreeLine, CallError>,
        node: NodeKey,
        streams: &StreamSettings,
        relayed: Option<&RelayedNegotiation>,
    ) -> Result<(Call, Option<Negotiation>), CallError> {
        let line = line?;
        self.know_mapping().await;
        // Begun as late as can be, so that the peer hears at once of all that was gathered by now.
        let direct = streams.begin_direct(&self.ice, Role::Controlling)?;
        let told = streams::streams(direct.as_ref(), relayed).ok_or(CallError::Ended)?;
        let call = line.call(node, &self.secret, told).await?;
        Ok((call, direct))
    }

    /// Waits a little until this side knows what its NAT does: the peer is told only once.
    async fn know_mapping(&self) {
        let mut gathered = self.gathered.clone();
        let known = gathered.wait_for(|gathered| gathered.mapping != Mapping::Unknown || gathered.complete);
        // If it does not become known in time, both sides try what would work at best.
        let _ = timeout(MAPPING_PATIENCE, known).await;
    }
}

/// Through whom a call went: the host of the relay.
fn through(via: &Multiaddr) -> String {
    let host = via.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.to_string()),
        Protocol::Ip6(ip) => Some(ip.to_string()),
        _ => None,
    });
    host.map(|host| format!(" through {host}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
