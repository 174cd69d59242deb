//! Credentials for TURN relays, over libp2p: what is asked and answered over `/keyferry/turn/1`.
//!
//! libp2p's request-response carries the messages; they go over direct connections only (`scope_filter`). Every stream has one
//! request and one reply, and a deadline; each connection has few streams; each peer and each host asks so often and no
//! more.
//!
//! What it is not: the policy of whom to relay for ([`CredentialIssuer`]), the relay, or a choice of relays
//! ([`crate::reach::turn_discovery`]).

mod frames;

use std::{
    collections::HashMap,
    fmt,
    future::ready,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture, stream::FuturesUnordered};
use keyferry_net::time::UnixTime;
use keyferry_proto::{
    frame::FrameError,
    identity::{NodeKey, NodeSecret},
    offer::{RecordKey, publish_days, relay_record_key, relay_record_key_of},
    relaying::{
        Channel, MAX_ADDRS, PROTOCOL, Refusal, RelayCredentials, RelayingError, Reply, anonymous_request, node_request,
        verify_request,
    },
};
use libp2p::{
    PeerId, StreamProtocol,
    request_response::{self, OutboundRequestId, ProtocolSupport, ResponseChannel},
};
use tokio::sync::oneshot;

pub(super) use self::frames::Frames;
use super::{call_stream::key_of_peer, counters::WhichCounter};
use crate::base::{
    clock,
    rate_limit::{Buckets, HostLimiter, Rate},
};

/// Streams of this protocol on one connection, in both directions.
const MAX_STREAMS: usize = 4;
/// How long a request may take, with its reply.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long asking may take, with the connection that is made for it.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Relays that may be asked at once.
pub(super) const MAX_ASKED: usize = 16;
/// Requests of others that may be waiting for a decision.
const MAX_DECIDING: usize = 64;
/// Addresses at which a relay is dialled to be asked.
pub(super) const MAX_DIALLED: usize = 4;
/// Requests that one rendezvous peer may make.
const PEER_RATE: Rate = Rate { burst: 4, interval: Duration::from_secs(30) };
/// Requests that one host may make; many nodes may be behind one address.
const HOST_RATE: Rate = Rate { burst: 32, interval: Duration::from_secs(5) };
/// Requests that all may make: each costs two multiplications on the curve.
const RATE: Rate = Rate { burst: 256, interval: Duration::from_millis(20) };

/// Who asks for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// The node, proven, if it says who it is.
    pub node: Option<NodeKey>,
    /// The rendezvous peer, proven. Anybody can make any number of them.
    pub peer: PeerId,
}

/// Issues credentials for the relay of this node, to whom its policy allows.
pub trait CredentialIssuer: Send + Sync {
    /// Decides on a requester that is connected from `remote`, soon: it waits for a few seconds. Without addresses in the
    /// credentials, those are named at which others have reached this node.
    fn issue(self: Arc<Self>, who: Requester, remote: IpAddr) -> BoxFuture<'static, Result<RelayCredentials, Refusal>>;
}

/// Whom a relay is announced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everyone.
    Everyone,
    /// Those who know the key of this node.
    Contacts,
}

/// What a node that relays does about it in the rendezvous.
#[derive(Clone)]
pub struct TurnService {
    /// Who decides on requests.
    pub issuer: Arc<dyn CredentialIssuer>,
    /// The node's key, to which requesters seal who they are.
    pub secret: NodeSecret,
    /// Whom the relay is announced to, while this node serves the wide-area DHT.
    pub audience: Audience,
}

/// As whom to ask a relay.
#[derive(Debug, Clone, Copy)]
pub enum AskAs<'a> {
    /// As nobody in particular.
    Anonymous,
    /// As this node, to be read by that one alone.
    Node {
        /// The node that asks.
        secret: &'a NodeSecret,
        /// The node that the relay is to be.
        relay: NodeKey,
    },
}

/// What a relay has issued.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The credentials. Their addresses are the relay's word.
    pub issued: RelayCredentials,
    /// The other end of the connection over which they came.
    pub via: SocketAddr,
    /// Whether this node has dialled `via`, so that the relay's port is there.
    pub is_dialled: bool,
}

/// Why a relay has issued nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskRelayError {
    /// Its key is no ed25519 key.
    #[error("its key is not one of ours")]
    Key,
    /// It is not connected, and there is no address of it that may be dialled.
    #[error("it has no address that may be dialled")]
    Address,
    /// This node asks too many at the moment.
    #[error("{limit} relays are being asked already, which is the limit", limit = MAX_ASKED)]
    TooMany,
    /// It is not there, or does not answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It is there, and does not speak the protocol.
    #[error("it does not relay")]
    NotARelay,
    /// It has refused.
    #[error("{0}")]
    Refused(Refusal),
    /// Its answer is not acceptable. The relay is at fault.
    #[error("its answer is wrong: {0}")]
    Reply(#[from] RelayingError),
    /// The rendezvous has ended.
    #[error("the rendezvous has ended")]
    Ended,
}

/// An answer as it came in.
#[derive(Debug)]
pub(super) struct RelayAnswer {
    pub(super) message: Vec<u8>,
    pub(super) via: SocketAddr,
    pub(super) is_dialled: bool,
}

/// Who waits for an answer.
pub(super) type AskReply = oneshot::Sender<Result<RelayAnswer, AskRelayError>>;

/// What the actor keeps for this protocol.
pub(super) struct Credentials {
    pub(super) service: Option<TurnService>,
    /// Relays that were asked, and who waits for their answers.
    pub(super) asked: HashMap<OutboundRequestId, AskReply>,
    /// Requests of others that are being decided on.
    pub(super) deciding: FuturesUnordered<BoxFuture<'static, Decided>>,
    allowance: Allowance,
}

/// The requests that others may still make.
struct Allowance {
    peers: Buckets,
    hosts: HostLimiter,
}

/// A request that has been decided on.
pub(super) struct Decided {
    pub(super) channel: ResponseChannel<Vec<u8>>,
    pub(super) decision: Result<RelayCredentials, Refusal>,
}

impl TurnService {
    /// The keys under which the relay is found at `now`.
    pub(super) fn record_keys(&self, now: UnixTime) -> Vec<RecordKey> {
        match self.audience {
            Audience::Everyone => vec![relay_record_key()],
            Audience::Contacts => {
                let node = self.secret.public();
                publish_days(now).into_iter().map(|day| relay_record_key_of(&node, day)).collect()
            }
        }
    }

    /// Begins to decide on a request from `remote`; an error is the requester's fault.
    fn decide(
        &self,
        message: &[u8],
        own: PeerId,
        peer: PeerId,
        remote: IpAddr,
    ) -> Result<BoxFuture<'static, Result<RelayCredentials, Refusal>>, RelayingError> {
        let (Some(relay), Some(requester)) = (key_of_peer(&own), key_of_peer(&peer)) else {
            return Err(RelayingError::RequesterKey);
        };
        let node = verify_request(message, &self.secret, Channel { relay, requester }, clock::now())?;
        Ok(Arc::clone(&self.issuer).issue(Requester { node, peer }, remote))
    }
}

impl fmt::Debug for TurnService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnService").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(service: Option<TurnService>) -> Self {
        let (asked, deciding) = (HashMap::new(), FuturesUnordered::new());
        Self { service, asked, deciding, allowance: Allowance::new() }
    }

    /// Begins to decide on a request. Returns the counter of one that gets no answer.
    pub(super) fn on_request(
        &mut self,
        request: Result<Vec<u8>, FrameError>,
        (own, peer, remote): (PeerId, PeerId, IpAddr),
        channel: ResponseChannel<Vec<u8>>,
    ) -> Result<(), WhichCounter> {
        let service = self.service.as_ref().ok_or::<WhichCounter>(|counters| &counters.turn_request_unwanted)?;
        let wrong = |error: &dyn std::error::Error| -> WhichCounter {
            tracing::debug!(%error, "a request for relaying is wrong");
            |counters| &counters.turn_request_wrong
        };
        let message = request.map_err(|error| wrong(&error))?;
        let is_allowed = self.deciding.len() < MAX_DECIDING && self.allowance.take(peer, remote, Instant::now());
        let decision = match is_allowed {
            true => service.decide(&message, own, peer, remote).map_err(|error| wrong(&error))?,
            false => ready(Err(Refusal::Busy)).boxed(),
        };
        self.deciding.push(decision.map(|decision| Decided { channel, decision }).boxed());
        Ok(())
    }
}

impl Allowance {
    fn new() -> Self {
        Self { peers: Buckets::new(), hosts: HostLimiter::new(HOST_RATE, RATE) }
    }

    /// Takes one request of a peer at a host; false if one of them has had enough, or all have.
    fn take(&mut self, peer: PeerId, host: IpAddr, now: Instant) -> bool {
        // A peer that is over its own limit must not use up those of others.
        self.peers.take(peer, PEER_RATE, now) && self.hosts.take(host, now)
    }
}

/// The answer to a decision, and the counter for it; no answer if no node would take it.
pub(super) fn answer(
    decision: Result<RelayCredentials, Refusal>,
    reached_at: impl FnOnce() -> Vec<SocketAddr>,
) -> (Option<Vec<u8>>, WhichCounter) {
    let (reply, counter): (_, WhichCounter) = match decision {
        Ok(mut issued) => {
            if issued.addrs.is_empty() {
                issued.addrs = reached_at();
            }
            issued.addrs.truncate(MAX_ADDRS);
            (Reply::Issued(issued), |counters| &counters.turn_issued)
        }
        Err(Refusal::Policy) => (Reply::Refused(Refusal::Policy), |counters| &counters.turn_refused_policy),
        Err(Refusal::Busy) => (Reply::Refused(Refusal::Busy), |counters| &counters.turn_refused_busy),
    };
    match reply.encode(clock::now()) {
        Ok(message) => (Some(message), counter),
        Err(error) => {
            tracing::warn!(%error, "this node's relay issues what nobody would take");
            (None, |counters| &counters.turn_issuer_wrong)
        }
    }
}

/// The behaviour. Only a node that relays says that it speaks the protocol.
pub(super) fn behaviour(service: Option<&TurnService>) -> request_response::Behaviour<Frames> {
    let support = if service.is_some() { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    let config = request_response::Config::default()
        .with_request_timeout(EXCHANGE_TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    request_response::Behaviour::with_codec(Frames, [(StreamProtocol::new(PROTOCOL), support)], config)
}

/// The request to a relay.
pub(super) fn request(own: &PeerId, relay: &PeerId, who: AskAs<'_>) -> Result<Vec<u8>, AskRelayError> {
    match who {
        AskAs::Anonymous => Ok(anonymous_request()),
        AskAs::Node { secret, relay: node } => {
            let requester = key_of_peer(own).ok_or(AskRelayError::Key)?;
            let relay = key_of_peer(relay).ok_or(AskRelayError::Key)?;
            let seed: [[u8; 32]; 2] = rand::random();
            let seed = std::array::from_fn(|at| seed[at / 32][at % 32]);
            Ok(node_request(secret, &node, Channel { relay, requester }, clock::now(), &seed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_peer_gets_its_burst_and_then_its_rate() {
        let (mut allowance, now, peer) = (Allowance::new(), Instant::now(), PeerId::random());
        assert_eq!((0..100).filter(|_| allowance.take(peer, host(1), now)).count(), PEER_RATE.burst as usize);
        let later = now + PEER_RATE.interval * 2;
        assert_eq!((0..100).filter(|_| allowance.take(peer, host(1), later)).count(), 2);
    }

    #[test]
    fn a_host_does_not_get_more_by_new_peers_and_leaves_enough_for_others() {
        let (mut allowance, now) = (Allowance::new(), Instant::now());
        let greedy = (0..10_000).filter(|_| allowance.take(PeerId::random(), host(1), now)).count();
        assert!(greedy <= HOST_RATE.burst as usize, "{greedy}");
        let others = (2..10_000).filter(|number| allowance.take(PeerId::random(), host(*number), now)).count();
        assert!(others > 0 && greedy + others <= RATE.burst as usize, "{others}");
    }
}
