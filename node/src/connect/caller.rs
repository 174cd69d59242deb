//! Calling a node that cannot be connected to: through a circuit of its offer, then ICE, then a session on the path that
//! was found, be it direct or relayed.
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
    streams::{self, PeerEnd, Search, StreamSettings},
    trace::Trace,
};
use crate::{
    connect::{
        acceptor::SessionHost,
        call_arbiter::{Outgoing, Turns},
        connector::{CallSetback, StreamSetbacks},
        ice::{IceHost, Negotiation, RelayedNegotiation},
        signalling::{Call, CallError, Line},
        trace::StageName,
    },
    net::{
        path::AddressPolicy,
        session::{InboundStreams, Session, SessionTls},
    },
    reach::{
        gather::Gathered,
        rendezvous::{CallOver, Rendezvous},
    },
};

/// Circuits that are tried to reach one node: those of two offers.
pub(crate) const MAX_CIRCUITS: usize = 8;
/// How long one circuit may take before the next one is tried beside it.
const NEXT_CIRCUIT_AFTER: Duration = Duration::from_millis(1500);
/// How long a line that is open waits for this side to learn what its NAT does.
const MAPPING_PATIENCE: Duration = Duration::from_millis(150);
/// Negotiations that are tried with one node, where one ends for no reason that would hold for the next.
const MAX_NEGOTIATIONS: usize = 2;

/// How long a session on a direct path is kept that comes while a relayed one is in use: whoever uses that one has moved by
/// then, or has no need to.
const MOVE_PATIENCE: Duration = Duration::from_secs(5);

/// A circuit at which a node can be called.
#[derive(Debug)]
pub(crate) struct Circuit {
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
    to_come: mpsc::Receiver<Circuit>,
}

/// A call that was answered, with the negotiations that it is about.
struct Rung {
    call: Call,
    direct: Option<Negotiation>,
    relayed: Option<RelayedNegotiation>,
}

impl Caller {
    /// Calls a node at its circuits, as they become known, until there is a session or nowhere left to call. An error of
    /// `None` means that there was no circuit at all.
    ///
    /// The first session is returned. If it is relayed, a direct path goes on being looked for, and if one is found, its
    /// session is listed and kept for a while: whoever uses the relayed one may move.
    pub(crate) async fn call(
        &self,
        node: NodeKey,
        to_come: mpsc::Receiver<Circuit>,
        policy: AddressPolicy,
        trace: &Trace,
    ) -> Result<(Session, InboundStreams), Option<CallSetback>> {
        self.call_for(node, to_come, policy, trace, &self.streams).await
    }

    /// The same for the direct stream only, such as while a relayed session is in use. A node that hides its address does not
    /// call for that.
    pub(crate) async fn call_direct(
        &self,
        node: NodeKey,
        to_come: mpsc::Receiver<Circuit>,
        policy: AddressPolicy,
        trace: &Trace,
    ) -> Result<(Session, InboundStreams), Option<CallSetback>> {
        if !self.streams.mode.allows_direct() {
            return Err(None);
        }
        self.call_for(node, to_come, policy, trace, &self.streams.direct_only()).await
    }

    async fn call_for(
        &self,
        node: NodeKey,
        mut to_come: mpsc::Receiver<Circuit>,
        policy: AddressPolicy,
        trace: &Trace,
        streams: &StreamSettings,
    ) -> Result<(Session, InboundStreams), Option<CallSetback>> {
        let Circuit { addr, not_before } = to_come.recv().await.ok_or(None)?;
        sleep_until(not_before.into()).await;
        let mut circuits = Circuits { known: vec![addr], to_come };
        let mut tries = 0;
        loop {
            let turn = Arc::new(self.turns.to_call(node).await);
            let setback = tokio::select! {
                ended = self.try_once(node, &mut circuits, &policy, trace, streams, &turn) => match ended {
                    Ok(session) => return Ok(session),
                    Err(setback) => setback,
                },
                // The node calls this one: if that leads to a session, nobody waits for this any more.
                () = turn.superseded.cancelled() => continue,
            };
            tries += 1;
            if tries == MAX_NEGOTIATIONS || !setback.may_pass() {
                return Err(Some(setback));
            }
            tracing::debug!(%setback, "calling once more");
        }
    }

    async fn try_once(
        &self,
        node: NodeKey,
        circuits: &mut Circuits,
        policy: &AddressPolicy,
        trace: &Trace,
        streams: &StreamSettings,
        turn: &Arc<Outgoing>,
    ) -> Result<(Session, InboundStreams), CallSetback> {
        trace.doing(|| format!("calling {}", node.short()));
        let began = Instant::now();
        let rung = self.ring(node, circuits, streams).await;
        let Rung { call, direct, relayed } =
            rung.inspect_err(|error| trace.stage(StageName::Signalling, began.elapsed(), error.to_string()))?;
        trace.stage(StageName::Signalling, began.elapsed(), format!("answered{}", through(&call.via)));
        trace.doing(|| format!("looking for a path to {}", node.short()));
        let peer = PeerEnd::Callee(node);
        let mut search = Search::new((direct, relayed), call, policy, peer, &self.tls, streams.mode);
        let mut setbacks = StreamSetbacks::default();
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
                Err(setback) => setbacks.note(outcome.stream, setback),
            }
        }
        Err(setbacks.into())
    }

    /// Goes on looking for a direct path while a relayed session stands.
    fn go_on_looking(&self, mut search: Search, relayed: &Session, turn: Arc<Outgoing>) {
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
    async fn ring(
        &self,
        node: NodeKey,
        circuits: &mut Circuits,
        streams: &StreamSettings,
    ) -> Result<Rung, CallSetback> {
        // Relays are asked at once, since their answers take longest.
        let mut relayed = streams.begin_relayed(&self.ice, Role::Controlling)?;
        let mut lines = FuturesUnordered::new();
        let (mut next, mut next_at) = (0, Instant::now());
        let (mut more_to_come, mut last_error) = (true, CallError::Ended);
        loop {
            tokio::select! {
                Some((line, circuit)) = lines.next() => match self.ring_on(line, node, streams, relayed.as_ref()).await {
                    Ok((call, direct)) => return Ok(Rung { call, direct, relayed: relayed.take() }),
                    Err(CallSetback::NotAnswered(error)) if !matches!(error, CallError::Refused(_)) => {
                        tracing::debug!(%error, "a call was not answered");
                        // A node that hides its address takes no call over a connection that shows it.
                        if let Some(circuit) = circuit {
                            lines.push(self.open_line(circuit, CallOver::Circuit));
                        }
                        last_error = error;
                        next_at = Instant::now();
                    }
                    Err(setback) => return Err(setback),
                },
                () = sleep_until(next_at.into()), if next < circuits.known.len() => {
                    let circuit = circuits.known[next].clone();
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
            if lines.is_empty() && next == circuits.known.len() && !may_come {
                return Err(last_error.into());
            }
        }
    }

    /// Opens a line, and says which circuit has not been tried if it goes over another connection.
    async fn open_line(&self, circuit: Multiaddr, over: CallOver) -> (Result<Line, CallError>, Option<Multiaddr>) {
        let line = Line::open(&self.rendezvous, &circuit, over).await;
        let untried = line.as_ref().is_ok_and(|line| !line.is_circuit());
        (line, untried.then_some(circuit))
    }

    async fn ring_on(
        &self,
        line: Result<Line, CallError>,
        node: NodeKey,
        streams: &StreamSettings,
        relayed: Option<&RelayedNegotiation>,
    ) -> Result<(Call, Option<Negotiation>), CallSetback> {
        let line = line?;
        self.know_mapping().await;
        // Begun as late as can be, so that the peer hears at once of all that was gathered by now.
        let direct = streams.begin_direct(&self.ice, Role::Controlling)?;
        let told = streams::streams(direct.as_ref(), relayed).ok_or(CallError::Ended)?;
        let call = line.call(node, &self.secret, told).await?;
        Ok((call, direct))
    }

    /// Waits a little until it is known what this side's NAT does, which is told to the peer once only.
    async fn know_mapping(&self) {
        let mut gathered = self.gathered.clone();
        let known = gathered.wait_for(|gathered| gathered.mapping != Mapping::Unknown || gathered.complete);
        // If it does not become known in time, both sides try what would work at best.
        let _ = timeout(MAPPING_PATIENCE, known).await;
    }
}

impl CallSetback {
    /// Whether another negotiation may well end otherwise.
    fn may_pass(&self) -> bool {
        match self {
            Self::NoPath { direct, relayed } => [direct, relayed].into_iter().flatten().any(|error| error.may_pass()),
            Self::NoSession { .. } => true,
            Self::NotAnswered(_) | Self::TooMany(_) => false,
        }
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
