//! The line at which a node that hides where it is calls and is called: circuits in a swarm of their own.
//!
//! The offer of such a node names its circuits, and in them a peer, to everybody who can open it. So that peer has a key of its own, which
//! never speaks DHT: whoever is in the DHT sees the node's address beside another key. And its connections to circuit relays are made by
//! a TURN relay ([`CircuitDialler`]): neither the relay that keeps a reservation, nor one that a peer's offer names, sees where the node is.
//!
//! What it is not: the choice of relays ([`super::reservations`]), which hears from the other swarm of peers that may relay.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    future::{BoxFuture, Pending, pending},
};
use libp2p::{
    Multiaddr, PeerId, Swarm, connection_limits,
    core::transport::{DialOpts, ListenerId, OrTransport, Transport, TransportError, TransportEvent},
    ping, relay,
    swarm::{ConnectionId, NetworkBehaviour, SwarmEvent},
};

use super::{
    behaviour::{connection_limits, keys_of, settings, upgraded},
    calls::{Calls, CallsEvent},
    circuit::is_circuit,
    config::{CircuitDialler, HiddenCircuits, RendezvousError},
    doubts,
    handshake::{Guarded, Handshakes},
    liveness::Liveness,
    panic_guard::PanicGuard,
    probe::Prober,
    reservations::{RelayVerdict, Reservations},
    scope::{AddressScope, socket_addr_of},
    scope_filter::ScopeFilter,
    status::StatusBoard,
};
use crate::base::traffic::Traffic;

/// How long a connection to a circuit relay may take, with the search for a TURN relay that makes it, and until it is encrypted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that may stand: circuits that come in are limited by [`Calls`].
const MAX_CONNECTIONS: usize = 128;

/// What works on the line. Nothing else does: no DHT, no identify.
#[derive(NetworkBehaviour)]
pub(super) struct LineBehaviour {
    limits: connection_limits::Behaviour,
    ping: ScopeFilter<Liveness>,
    prober: ScopeFilter<Prober>,
    relay_client: PanicGuard<relay::client::Behaviour>,
    calls: Calls,
}

/// The line.
pub(super) struct HiddenLine {
    pub(super) swarm: Swarm<LineBehaviour>,
    /// Connections with circuit relays, and their last round trip.
    links: HashMap<ConnectionId, (PeerId, Option<Duration>)>,
}

impl HiddenLine {
    pub(super) fn new(hidden: &HiddenCircuits, traffic: Traffic) -> Result<Self, RendezvousError> {
        let keys = keys_of(&hidden.secret)?;
        let peer = keys.public().to_peer_id();
        let (circuits, relay_client) = relay::client::new(peer);
        let handshakes = Handshakes::new(traffic.clone());
        let relayed = RelayedTransport { dialler: Arc::clone(&hidden.dialler), handshakes };
        let transport = upgraded(OrTransport::new(circuits, relayed), &keys, CONNECT_TIMEOUT, traffic)?;
        let behaviour = LineBehaviour {
            limits: connection_limits::Behaviour::new(connection_limits(MAX_CONNECTIONS)),
            ping: ScopeFilter::direct(Liveness::new()),
            prober: ScopeFilter::direct(Prober::default()),
            relay_client: PanicGuard::new(relay_client),
            calls: Calls::new(peer, true),
        };
        Ok(Self { swarm: Swarm::new(transport, behaviour, peer, settings()), links: HashMap::new() })
    }

    /// The peer that offers name.
    pub(super) fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    pub(super) fn calls(&mut self) -> &mut Calls {
        &mut self.swarm.behaviour_mut().calls
    }

    /// The next event of the line; never any of a node that has none.
    pub(super) async fn next(line: &mut Option<Self>) -> SwarmEvent<LineBehaviourEvent> {
        match line {
            Some(line) => line.swarm.select_next_some().await,
            None => pending().await,
        }
    }

    /// Probes all connections with circuit relays; those that do not answer in time are closed.
    pub(super) fn doubt(&mut self) {
        for (id, (peer, round_trip)) in &self.links {
            self.swarm.behaviour_mut().prober.inner.probe(*peer, *id, doubts::patience(*round_trip));
        }
    }

    /// Takes an event of the line, and tells those whom it concerns.
    pub(super) fn on_event(
        &mut self,
        event: SwarmEvent<LineBehaviourEvent>,
        reservations: &mut Reservations,
        status: &mut StatusBoard,
    ) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } if !endpoint.is_relayed() => {
                self.links.insert(connection_id, (peer_id, None));
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                let is_link = self.links.remove(&connection_id).is_some();
                if is_link && !self.links.values().any(|(peer, _)| *peer == peer_id) {
                    reservations.on_link_lost(&peer_id);
                    status.changed();
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                reservations.on_listener_closed(listener_id, Instant::now());
                status.changed();
            }
            SwarmEvent::Behaviour(LineBehaviourEvent::Calls(CallsEvent::Dropped(counter))) => status.count(counter),
            SwarmEvent::Behaviour(LineBehaviourEvent::RelayClient(event)) => {
                if let RelayVerdict::Leave(relay) = reservations.on_client_event(&event, Instant::now()) {
                    status.count(|counters| &counters.relay_left);
                    let _ = self.swarm.disconnect_peer_id(relay);
                }
                status.changed();
            }
            SwarmEvent::Behaviour(LineBehaviourEvent::Prober(probed)) if !probed.is_alive => {
                status.count(|counters| &counters.closed_in_doubt);
                self.swarm.close_connection(probed.connection);
            }
            SwarmEvent::Behaviour(LineBehaviourEvent::Ping(event)) => self.on_ping(&event),
            _ => {}
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            Ok(measured) => {
                if let Some((_, round_trip)) = self.links.get_mut(&event.connection) {
                    *round_trip = Some(*measured);
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                tracing::debug!(%error, "a circuit relay does not answer pings");
                self.swarm.close_connection(event.connection);
            }
        }
    }
}

/// A libp2p `Transport` whose connections somebody else makes, and which has no way in.
struct RelayedTransport {
    dialler: Arc<dyn CircuitDialler>,
    handshakes: Handshakes,
}

impl Transport for RelayedTransport {
    type Output = Guarded;
    type Error = io::Error;
    type ListenerUpgrade = Pending<io::Result<Guarded>>;
    type Dial = BoxFuture<'static, io::Result<Guarded>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        // A circuit that nobody takes must not come to be dialled as what it begins with.
        let is_relay = !is_circuit(&addr) && AddressScope::of(&addr) == Some(AddressScope::Wan);
        let Some(relay) = socket_addr_of(&addr).filter(|_| is_relay) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let (connecting, handshakes) = (self.dialler.connect(relay), self.handshakes.clone());
        Ok(Box::pin(async move { Ok(handshakes.dialled(connecting.await?, None)) }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}
