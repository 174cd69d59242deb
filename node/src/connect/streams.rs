//! The two streams of one call, direct and relayed: a path is looked for in both at the same time, and each ends in a
//! session of its own.
//!
//! What it is not: the negotiation of a stream (`crate::connect::ice`), or what is done with its session.

use std::{
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::{PairReport, Role, Stream};
use keyferry_proto::{identity::NodeKey, signalling::Streams};

use super::trace::Trace;
use crate::{
    connect::{
        ice::{
            AllocationStep, AllocationSteps, Found, IceError, IceFailure, IceHost, Negotiation, RelayedNegotiation,
            TooManyNegotiations,
        },
        signalling::Call,
        trace::StageName,
    },
    net::{
        path::{AddressPolicy, Path, PathKind, RelayMode, RelayReason},
        session::{EarlyDial, IdentityRefused, InboundStreams, Session, SessionError, SessionTls},
    },
    reach::turn_client::RelayAllocator,
};

/// Which streams this node's calls are about, and the relays for the relayed one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StreamSettings {
    pub(crate) mode: RelayMode,
    pub(crate) relays: Arc<dyn RelayAllocator>,
}

impl StreamSettings {
    /// The same, without the relayed stream.
    pub(crate) fn direct_only(&self) -> Self {
        Self { mode: RelayMode::NoRelay, ..self.clone() }
    }

    /// Begins the relayed stream, if this node takes part in it. Where too many are under way, the direct one has to do.
    pub(crate) fn begin_relayed(
        &self,
        ice: &Arc<IceHost>,
        role: Role,
    ) -> Result<Option<RelayedNegotiation>, TooManyNegotiations> {
        if !self.mode.allows_relays() {
            return Ok(None);
        }
        let hidden = !self.mode.allows_direct();
        match ice.begin_relayed(role, &self.relays, hidden) {
            Ok(negotiation) => Ok(Some(negotiation)),
            Err(error) if hidden => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Begins the direct stream, if this node takes part in it.
    pub(crate) fn begin_direct(
        &self,
        ice: &Arc<IceHost>,
        role: Role,
    ) -> Result<Option<Negotiation>, TooManyNegotiations> {
        self.mode.allows_direct().then(|| ice.begin(role)).transpose()
    }
}

/// What the peer is told of the streams that have begun. `None`: there is none.
pub(crate) fn streams(direct: Option<&Negotiation>, relayed: Option<&RelayedNegotiation>) -> Option<Streams> {
    match (direct.map(Negotiation::description), relayed) {
        (Some(direct), Some(_)) => Some(Streams::DirectAndRelayed(direct)),
        (Some(direct), None) => Some(Streams::Direct(direct)),
        (None, Some(_)) => Some(Streams::Relayed),
        (None, None) => None,
    }
}

/// Who is at the other end of the paths, and which side this is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PeerEnd {
    /// The node that was called.
    Callee(NodeKey),
    /// The node that calls.
    Caller(NodeKey),
}

impl PeerEnd {
    /// Begins the handshake with a node that was called, so that its answer does not have to wait for the path. If that fails, the
    /// handshake on the path tells why.
    fn begin_dial(self, tls: &Arc<SessionTls>) -> Option<EarlyDial> {
        match self {
            Self::Callee(node) => EarlyDial::begin(tls, node).ok(),
            Self::Caller(_) => None,
        }
    }
}

fn first_words(early: &Option<EarlyDial>) -> &[u8] {
    early.as_ref().map_or(&[], EarlyDial::first_words)
}

/// What came of one stream.
pub(crate) struct Outcome {
    pub(crate) stream: Stream,
    pub(crate) result: Result<(Session, InboundStreams), StreamSetback>,
    /// How long the negotiation took.
    negotiated: Duration,
    pairs: Vec<PairReport>,
    /// The path, and how long the handshake on it took.
    handshake: Option<(String, Duration)>,
}

/// Why a stream has not led to a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamSetback {
    /// There is no path.
    #[error(transparent)]
    NoPath(IceError),
    /// There was a path, but no session on it.
    #[error("a path was found, but no session was made on it: {why}")]
    NoSession {
        /// The other end of the path.
        remote: std::net::SocketAddr,
        /// Why.
        why: SessionError,
    },
}

/// The search for a path in the streams of one call. Dropping it ends the negotiations.
pub(crate) struct Search {
    direct: Option<BoxFuture<'static, Outcome>>,
    relayed: Option<BoxFuture<'static, Outcome>>,
    relayed_path: Arc<AtomicBool>,
    allocation_steps: AllocationSteps,
}

impl Search {
    /// Goes on with the streams that the call is about.
    pub(crate) fn new(
        negotiations: (Option<Negotiation>, Option<RelayedNegotiation>),
        call: Call,
        policy: &AddressPolicy,
        peer: PeerEnd,
        tls: &Arc<SessionTls>,
        mode: RelayMode,
    ) -> Self {
        let reason: Arc<OnceLock<RelayReason>> = Arc::default();
        if !mode.allows_direct() {
            let _ = reason.set(RelayReason::RelayOnly);
        }
        let relayed_path: Arc<AtomicBool> = Arc::default();
        let (direct, relayed) = negotiations;
        let allocation_steps = relayed.as_ref().map(RelayedNegotiation::allocation_steps).unwrap_or_default();
        let direct = direct.zip(call.direct).map(|(negotiation, dialogue)| {
            let (policy, tls, reason) = (policy.clone(), Arc::clone(tls), Arc::clone(&reason));
            async move {
                let began = Instant::now();
                let early = peer.begin_dial(&tls);
                let negotiation = negotiation.saying(first_words(&early));
                let found = negotiation.find(dialogue, &policy).await;
                if let Err(IceError { reason: IceFailure::NoPath(why), .. }) = &found {
                    let _ = reason.set((*why).into());
                }
                Outcome::of(Stream::Direct, began, found, peer, early, &tls).await
            }
            .boxed()
        });
        let relayed = relayed.zip(call.relayed).map(|(negotiation, dialogue)| {
            let (policy, tls, has_path) = (policy.clone(), Arc::clone(tls), Arc::clone(&relayed_path));
            async move {
                let began = Instant::now();
                let early = peer.begin_dial(&tls);
                let negotiation = negotiation.saying(first_words(&early));
                let mut found = negotiation.find(dialogue, &policy).await;
                has_path.store(found.is_ok(), Ordering::Relaxed);
                if let Ok(Found { path, .. }) = &mut found
                    && let PathKind::Relayed { why, .. } = &mut path.report.kind
                {
                    *why = reason.get().copied();
                }
                Outcome::of(Stream::Relayed, began, found, peer, early, &tls).await
            }
            .boxed()
        });
        Self { direct, relayed, relayed_path, allocation_steps }
    }

    /// Tells what has come of asking this side's relays since the last time.
    pub(crate) fn tell_of_relays(&self, trace: &Trace) {
        for AllocationStep { family, took, outcome } in self.allocation_steps.take() {
            let detail = match outcome {
                Ok((server, relayed)) => format!("{relayed} at {server}"),
                Err(error) => format!("no {family} address: {error}"),
            };
            trace.stage(StageName::Relay, took, detail);
        }
    }

    /// What came of the stream that ends next; `None` when both have ended. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Outcome> {
        if self.direct.is_none() && self.relayed.is_none() {
            return None;
        }
        let outcome = tokio::select! {
            // What is direct is better, where both are there.
            biased;
            outcome = run(&mut self.direct) => outcome,
            outcome = run(&mut self.relayed) => outcome,
        };
        match outcome.stream {
            Stream::Direct => self.direct = None,
            Stream::Relayed => self.relayed = None,
        }
        Some(outcome)
    }

    /// Whether a session is being made on a relayed path. The peer may have it already: the side that dials has it first.
    pub(crate) fn makes_relayed_session(&self) -> bool {
        self.relayed.is_some() && self.relayed_path.load(Ordering::Relaxed)
    }

    /// Whether a direct path is still being looked for.
    pub(crate) fn looks_for_direct(&self) -> bool {
        self.direct.is_some()
    }
}

impl Outcome {
    async fn of(
        stream: Stream,
        began: Instant,
        found: Result<Found, IceError>,
        peer: PeerEnd,
        early: Option<EarlyDial>,
        tls: &Arc<SessionTls>,
    ) -> Self {
        let negotiated = began.elapsed();
        match found {
            Err(error) => {
                let pairs = error.pairs.clone();
                Self { stream, result: Err(StreamSetback::NoPath(error)), negotiated, pairs, handshake: None }
            }
            Ok(Found { path, pairs, first_words_said }) => {
                let (began, remote) = (Instant::now(), path.report.remote);
                let detail = format!("{} at {remote}", path.report);
                let session = match early {
                    Some(early) => early.finish(path, first_words_said).await,
                    None => make_session(path, peer, tls).await,
                };
                let result = session.map_err(|why| StreamSetback::NoSession { remote, why });
                Self { stream, result, negotiated, pairs, handshake: Some((detail, began.elapsed())) }
            }
        }
    }

    /// Tells of it to whoever wants to know the steps.
    pub(crate) fn tell(&self, trace: &Trace) {
        let detail = match (&self.handshake, &self.result) {
            (Some((detail, _)), _) => detail.clone(),
            (None, Err(error)) => format!("no {} path: {error}", self.stream),
            (None, Ok(_)) => String::new(),
        };
        trace.checked(StageName::Checks, self.negotiated, detail, &self.pairs);
        if let Some((_, took)) = &self.handshake {
            let proven = || "proven to be the node".to_owned();
            let detail = self.result.as_ref().map_or_else(ToString::to_string, |_| proven());
            trace.stage(StageName::Tls, *took, detail);
        }
    }
}

/// Waits for a stream's end, if it is under way. Cancel-safe.
async fn run(stream: &mut Option<BoxFuture<'static, Outcome>>) -> Outcome {
    match stream {
        Some(stream) => stream.await,
        None => pending().await,
    }
}

/// The caller is the TLS client; each side wants to meet the other one and nobody else.
async fn make_session(
    path: Path,
    peer: PeerEnd,
    tls: &Arc<SessionTls>,
) -> Result<(Session, InboundStreams), SessionError> {
    match peer {
        PeerEnd::Callee(node) => Session::dial(path, tls, Some(node)).await,
        PeerEnd::Caller(node) => {
            let (session, inbound) = Session::accept(path, tls).await?;
            if session.peer() != node {
                session.break_off("another node than the caller is there");
                return Err(
                    IdentityRefused::OtherNode { expected: Box::new(node), got: Box::new(session.peer()) }.into()
                );
            }
            Ok((session, inbound))
        }
    }
}
