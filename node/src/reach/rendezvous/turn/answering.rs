//! Answering those who ask for leave to use the relay of this node, and the keys under which it is announced.
//!
//! What it is not: the policy of whom to relay for ([`CredentialIssuer`]), or the relay.

use std::{
    fmt,
    future::ready,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use keyferry_net::time::UnixTime;
use keyferry_proto::{
    frame::FrameError,
    identity::{NodeKey, NodeSecret},
    offer::{RecordKey, publish_days, relay_record_key, relay_record_key_of},
    relaying::{MAX_ADDRS, RelayChannel, RelayCredentials, RelayRefusal, RelayingError, Reply, verify_request},
};
use libp2p::{PeerId, request_response::ResponseChannel};

use crate::{
    base::{
        clock,
        rate_limit::{Buckets, HostLimiter, Rate},
    },
    reach::rendezvous::{call_stream::key_of_peer, counters::WhichCounter},
};

/// Requests of others that may be waiting for a decision.
const MAX_DECIDING: usize = 64;
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
    fn issue(
        self: Arc<Self>,
        who: Requester,
        remote: IpAddr,
    ) -> BoxFuture<'static, Result<RelayCredentials, RelayRefusal>>;
}

/// Whom a relay is announced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnouncedTo {
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
    pub audience: AnnouncedTo,
}

/// The requests of others.
pub(in super::super) struct RelayRequests {
    service: Option<TurnService>,
    /// Those that are being decided on.
    deciding: FuturesUnordered<BoxFuture<'static, Decided>>,
    allowance: Allowance,
}

/// The requests that others may still make.
struct Allowance {
    peers: Buckets,
    hosts: HostLimiter,
}

/// A request that has been decided on.
pub(in super::super) struct Decided {
    pub(in super::super) channel: ResponseChannel<Vec<u8>>,
    pub(in super::super) decision: Result<RelayCredentials, RelayRefusal>,
}

impl TurnService {
    /// The keys under which the relay is found at `now`.
    fn record_keys(&self, now: UnixTime) -> Vec<RecordKey> {
        match self.audience {
            AnnouncedTo::Everyone => vec![relay_record_key()],
            AnnouncedTo::Contacts => {
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
    ) -> Result<BoxFuture<'static, Result<RelayCredentials, RelayRefusal>>, RelayingError> {
        let (Some(relay), Some(requester)) = (key_of_peer(&own), key_of_peer(&peer)) else {
            return Err(RelayingError::RequesterKey);
        };
        let node = verify_request(message, &self.secret, RelayChannel { relay, requester }, clock::now())?;
        Ok(Arc::clone(&self.issuer).issue(Requester { node, peer }, remote))
    }
}

impl fmt::Debug for TurnService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnService").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl RelayRequests {
    /// Nothing is asked yet. Without a service, this node does not relay.
    pub(in super::super) fn new(service: Option<TurnService>) -> Self {
        Self { service, deciding: FuturesUnordered::new(), allowance: Allowance::new() }
    }

    /// The keys under which this node's relay is found now, if it has one.
    pub(in super::super) fn record_keys(&self) -> Vec<RecordKey> {
        self.service.as_ref().map_or_else(Vec::new, |service| service.record_keys(clock::now()))
    }

    /// Waits for the next decision; there is none while no request is being decided on.
    pub(in super::super) async fn decided(&mut self) -> Option<Decided> {
        self.deciding.next().await
    }

    /// Begins to decide on a request. Returns the counter of one that gets no answer.
    pub(in super::super) fn on_request(
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
            false => ready(Err(RelayRefusal::Busy)).boxed(),
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
pub(in super::super) fn answer(
    decision: Result<RelayCredentials, RelayRefusal>,
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
        Err(RelayRefusal::Policy) => (Reply::Refused(RelayRefusal::Policy), |counters| &counters.turn_refused_policy),
        Err(RelayRefusal::Busy) => (Reply::Refused(RelayRefusal::Busy), |counters| &counters.turn_refused_busy),
    };
    match reply.encode(clock::now()) {
        Ok(message) => (Some(message), counter),
        Err(error) => {
            tracing::warn!(%error, "this node's relay issues what nobody would take");
            (None, |counters| &counters.turn_issuer_wrong)
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
