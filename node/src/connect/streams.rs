//! The two streams of one call, direct and relayed: both look for a path at the same time, and each ends in a session of its
//! own.
//!
//! What it is not: the negotiation of a stream (`crate::connect::ice`), or what is done with its session.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::{PairReport, Role, Stream};
use keyferry_proto::{dialling::Sought, identity::NodeKey, signalling::Streams};

use super::trace::Trace;
use crate::{
    connect::{
        ice::{
            AllocationStep, AllocationSteps, FoundPath, IceError, IceFailure, IceHost, Negotiation, RelayedNegotiation,
            TooManyNegotiations,
        },
        signalling::{Call, CallError},
        trace::StageName,
    },
    net::{
        path::{AddressPolicy, Path, PathKind, RelayMode, RelayReason},
        session::{EarlyDial, IdentityRefused, InboundStreams, Session, SessionError, SessionTls, WeakSession},
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

    /// Begins the relayed stream, if this node takes part in it. When too many are under way, the direct one has to do.
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
            Self::Callee(node) => EarlyDial::begin(tls, Sought::Node(node)).ok(),
            Self::Caller(_) => None,
        }
    }
}

fn first_words(early: &Option<EarlyDial>) -> &[u8] {
    early.as_ref().map_or(&[], EarlyDial::first_words)
}

/// What came of one stream.
pub(crate) struct StreamOutcome {
    pub(crate) stream: Stream,
    pub(crate) result: Result<(Session, InboundStreams), CallError>,
    /// How long the negotiation took.
    negotiated: Duration,
    pairs: Vec<PairReport>,
    /// The path, in words, and how long the handshake on it took.
    handshake: Option<(String, Duration)>,
}

/// The search for a path in the streams of one call. Dropping it ends the negotiations.
pub(crate) struct PathSearch {
    direct: StreamProgress,
    relayed: StreamProgress,
    peer: PeerEnd,
    tls: Arc<SessionTls>,
    /// Why there is no direct path, once that is known.
    why_relayed: Option<RelayReason>,
    /// The session of the relayed stream, which may have to be told why there is no direct one.
    relayed_session: Option<WeakSession>,
    allocation_steps: AllocationSteps,
}

/// How far one stream has come.
enum StreamProgress {
    Negotiating(BoxFuture<'static, Milestone>),
    /// There is a path; the peer proves itself on it.
    Proving(BoxFuture<'static, StreamOutcome>),
    Over,
}

/// What a stream has come to.
enum Milestone {
    Path(Negotiated),
    Ended(StreamOutcome),
}

/// A stream whose negotiation has led to a path.
struct Negotiated {
    stream: Stream,
    took: Duration,
    found: FoundPath,
    early: Option<EarlyDial>,
}

impl PathSearch {
    /// Goes on with the streams that the call is about.
    pub(crate) fn new(
        negotiations: (Option<Negotiation>, Option<RelayedNegotiation>),
        call: Call,
        policy: &AddressPolicy,
        peer: PeerEnd,
        tls: &Arc<SessionTls>,
        mode: RelayMode,
    ) -> Self {
        let (direct, relayed) = negotiations;
        let allocation_steps = relayed.as_ref().map(RelayedNegotiation::allocation_steps).unwrap_or_default();
        let direct = direct.zip(call.direct).map(|(negotiation, dialogue)| {
            let (policy, early) = (policy.clone(), peer.begin_dial(tls));
            let negotiation = negotiation.saying(first_words(&early));
            negotiate(Stream::Direct, early, async move { negotiation.find(dialogue, &policy).await })
        });
        let relayed = relayed.zip(call.relayed).map(|(negotiation, dialogue)| {
            let (policy, early) = (policy.clone(), peer.begin_dial(tls));
            let negotiation = negotiation.saying(first_words(&early));
            negotiate(Stream::Relayed, early, async move { negotiation.find(dialogue, &policy).await })
        });
        Self {
            direct: direct.unwrap_or(StreamProgress::Over),
            relayed: relayed.unwrap_or(StreamProgress::Over),
            peer,
            tls: Arc::clone(tls),
            why_relayed: (!mode.allows_direct()).then_some(RelayReason::RelayOnly),
            relayed_session: None,
            allocation_steps,
        }
    }

    /// Tells what came of asking this side's relays since the last time.
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
    pub(crate) async fn next(&mut self) -> Option<StreamOutcome> {
        while self.direct.is_under_way() || self.relayed.is_under_way() {
            let milestone = tokio::select! {
                // If both are ready, the direct one is better.
                biased;
                milestone = self.direct.next() => milestone,
                milestone = self.relayed.next() => milestone,
            };
            match milestone {
                Milestone::Path(negotiated) => self.on_path(negotiated),
                Milestone::Ended(outcome) => {
                    self.on_ended(&outcome);
                    return Some(outcome);
                }
            }
        }
        None
    }

    fn on_path(&mut self, mut negotiated: Negotiated) {
        if let PathKind::Relayed { why, .. } = &mut negotiated.found.path.report.kind {
            *why = self.why_relayed;
        }
        let stream = negotiated.stream;
        let proving = negotiated.prove(self.peer, Arc::clone(&self.tls)).boxed();
        *self.progress(stream) = StreamProgress::Proving(proving);
    }

    /// Lets the relayed session know why there is no direct one, whichever of the two comes first.
    fn on_ended(&mut self, outcome: &StreamOutcome) {
        *self.progress(outcome.stream) = StreamProgress::Over;
        match (outcome.stream, &outcome.result) {
            (
                Stream::Direct,
                Err(CallError::NoPath { direct: Some(IceError { reason: IceFailure::NoPath(why), .. }), .. }),
            ) => {
                self.why_relayed.get_or_insert((*why).into());
            }
            (Stream::Relayed, Ok((session, _))) => self.relayed_session = Some(session.downgrade()),
            _ => {}
        }
        if let Some(why) = self.why_relayed
            && let Some(session) = self.relayed_session.as_ref().and_then(WeakSession::upgrade)
        {
            session.explain_relay(why);
        }
    }

    fn progress(&mut self, stream: Stream) -> &mut StreamProgress {
        match stream {
            Stream::Direct => &mut self.direct,
            Stream::Relayed => &mut self.relayed,
        }
    }

    /// Whether a session is being made on a relayed path. The peer may have it already: the side that dials has it first.
    pub(crate) fn makes_relayed_session(&self) -> bool {
        matches!(self.relayed, StreamProgress::Proving(_))
    }

    /// Whether the search for a direct path goes on.
    pub(crate) fn looks_for_direct(&self) -> bool {
        self.direct.is_under_way()
    }
}

impl StreamProgress {
    fn is_under_way(&self) -> bool {
        !matches!(self, Self::Over)
    }

    /// Waits for what the stream comes to next; for ever if it is over. Cancel-safe.
    async fn next(&mut self) -> Milestone {
        match self {
            Self::Negotiating(negotiation) => negotiation.await,
            Self::Proving(handshake) => Milestone::Ended(handshake.await),
            Self::Over => pending().await,
        }
    }
}

/// Begins to look for the path of a stream.
fn negotiate(
    stream: Stream,
    early: Option<EarlyDial>,
    finding: impl Future<Output = Result<FoundPath, IceError>> + Send + 'static,
) -> StreamProgress {
    let negotiation = async move {
        let began = Instant::now();
        let found = finding.await;
        let took = began.elapsed();
        match found {
            Ok(found) => Milestone::Path(Negotiated { stream, took, found, early }),
            Err(error) => {
                let pairs = error.pairs.clone();
                let result = Err(CallError::no_path(stream, error));
                Milestone::Ended(StreamOutcome { stream, result, negotiated: took, pairs, handshake: None })
            }
        }
    };
    StreamProgress::Negotiating(negotiation.boxed())
}

impl Negotiated {
    /// Makes a session on the path.
    async fn prove(self, peer: PeerEnd, tls: Arc<SessionTls>) -> StreamOutcome {
        let Self { stream, took: negotiated, found: FoundPath { path, pairs, first_words_said }, early } = self;
        let (began, remote) = (Instant::now(), path.report.remote);
        let detail = format!("{} at {remote}", path.report);
        let session = match early {
            Some(early) => early.finish(path, first_words_said).await,
            None => make_session(path, peer, &tls).await,
        };
        let result = session.map_err(|why| CallError::NoSession { stream, remote, why });
        StreamOutcome { stream, result, negotiated, pairs, handshake: Some((detail, began.elapsed())) }
    }
}

impl StreamOutcome {
    /// Tells those who follow the steps.
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

/// The caller is the TLS client; each side wants to meet the other one and nobody else.
async fn make_session(
    path: Path,
    peer: PeerEnd,
    tls: &Arc<SessionTls>,
) -> Result<(Session, InboundStreams), SessionError> {
    match peer {
        PeerEnd::Callee(node) => Session::dial(path, tls, Sought::Node(node)).await,
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
