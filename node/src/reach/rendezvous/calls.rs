//! The libp2p behaviour that opens and takes the streams of calls, and closes the circuits that were made for them.
//!
//! `libp2p-stream` would open a stream on any connection of a peer, does not say which one an incoming stream is on, drops
//! incoming streams that arrive together, and never forgets a connection; a call needs the circuit that it was opened over,
//! and strangers open connections.
//!
//! What it is not: what is said on the streams; see [`crate::connect::signalling`].

mod handler;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::mpsc;

use self::handler::{CallConnection, CallHandler, Ends, HandlerEvent, OpenReply};
use super::{
    call_stream::{CallStream, OpenCallError, key_of_peer},
    circuit::{RelayCircuit, is_circuit},
    counters::WhichCounter,
};

/// Circuits that may be dialled for calls at once.
const MAX_DIALLING: usize = 32;
/// Circuits that others may have open to this node at once. One more closes the oldest that carries no call.
const MAX_INCOMING_CIRCUITS: usize = 64;
/// Those of them that may come through one relay: a relay that keeps no limits of its own must not keep out the calls that come
/// through others.
const MAX_CIRCUITS_OF_RELAY: usize = 24;

/// Over which connections a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOver {
    /// One that stands already, if there is one.
    Any,
    /// The circuit, whatever else there is: a node that hides its address takes no other calls.
    Circuit,
}

/// The behaviour.
pub(super) struct Calls {
    own: PeerId,
    /// Whether calls go over circuits only, so that the other node does not learn this one's address by the connection.
    hidden: bool,
    /// Who takes incoming calls.
    taker: Option<mpsc::Sender<CallStream>>,
    /// Connections with no relay between.
    direct: HashMap<PeerId, Vec<ConnectionId>>,
    dialling: HashMap<ConnectionId, OpenReply>,
    /// Circuits that others have opened, the oldest first.
    incoming: VecDeque<IncomingCircuit>,
    actions: VecDeque<ToSwarm<CallsEvent, OpenReply>>,
    waker: Option<Waker>,
}

/// A circuit that another peer has opened to this node.
#[derive(Debug, Clone, Copy)]
struct IncomingCircuit {
    id: ConnectionId,
    peer: PeerId,
    relay: Option<SocketAddr>,
    has_carried_call: bool,
}

/// What the behaviour reports.
#[derive(Debug)]
pub(super) enum CallsEvent {
    /// An incoming stream or circuit was dropped; the counter says why.
    Dropped(WhichCounter),
}

impl Calls {
    pub(super) fn new(own: PeerId, hidden: bool) -> Self {
        Self {
            own,
            hidden,
            taker: None,
            direct: HashMap::new(),
            dialling: HashMap::new(),
            incoming: VecDeque::new(),
            actions: VecDeque::new(),
            waker: None,
        }
    }

    /// Hands incoming streams to `taker` from now on.
    pub(super) fn take(&mut self, taker: mpsc::Sender<CallStream>) {
        self.taker = Some(taker);
    }

    /// Opens a stream to the peer at the end of a circuit: over a connection that stands, or over the circuit.
    pub(super) fn open(&mut self, addr: &Multiaddr, over: CallOver, reply: OpenReply) {
        let circuit = RelayCircuit::of(addr).filter(|circuit| circuit.peer != self.own);
        let Some(circuit) = circuit else {
            let _ = reply.send(Err(OpenCallError::Address { addr: addr.clone() }));
            return;
        };
        self.dialling.retain(|_, reply| !reply.is_closed());
        let direct = self.direct.get(&circuit.peer).and_then(|own| own.first()).copied();
        if let Some(id) = direct.filter(|_| over == CallOver::Any && !self.hidden) {
            let handler = NotifyHandler::One(id);
            self.act(ToSwarm::NotifyHandler { peer_id: circuit.peer, handler, event: reply });
        } else if circuit.relay == self.own {
            let _ = reply.send(Err(OpenCallError::NotConnected));
        } else if self.dialling.len() >= MAX_DIALLING {
            let _ = reply.send(Err(OpenCallError::TooMany));
        } else {
            let opts = DialOpts::peer_id(circuit.peer).condition(PeerCondition::Always);
            let opts = opts.addresses(vec![circuit.addr()]).build();
            self.dialling.insert(opts.connection_id(), reply);
            self.act(ToSwarm::Dial { opts });
        }
    }

    fn act(&mut self, action: ToSwarm<CallsEvent, OpenReply>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What the handler of a new connection has to know; nothing if the peer's key is not ed25519, which no peer of ours has.
    fn connection(&self, peer: &PeerId, via: &Multiaddr) -> Option<CallConnection> {
        let (local, remote) = (key_of_peer(&self.own)?, key_of_peer(peer)?);
        Some(CallConnection { local, remote, via: via.clone() })
    }

    /// Makes room for one more incoming circuit, if there is a silent one.
    fn admit_circuit(&mut self, id: ConnectionId, peer: PeerId, local: &Multiaddr) -> Result<(), ConnectionDenied> {
        let relay = RelayCircuit::relay_addr_in(local);
        let of_relay = self.incoming.iter().filter(|circuit| circuit.relay == relay).count();
        if of_relay >= MAX_CIRCUITS_OF_RELAY {
            self.close_silent(|circuit| circuit.relay == relay)?;
        } else if self.incoming.len() >= MAX_INCOMING_CIRCUITS {
            self.close_silent(|_| true)?;
        }
        self.incoming.push_back(IncomingCircuit { id, peer, relay, has_carried_call: false });
        Ok(())
    }

    /// Closes the oldest of these circuits that has carried no call.
    fn close_silent(&mut self, among: impl Fn(&IncomingCircuit) -> bool) -> Result<(), ConnectionDenied> {
        let silent = self.incoming.iter().position(|circuit| !circuit.has_carried_call && among(circuit));
        let Some(IncomingCircuit { id, peer: peer_id, .. }) = silent.and_then(|at| self.incoming.remove(at)) else {
            self.act(ToSwarm::GenerateEvent(CallsEvent::Dropped(|counters| &counters.call_circuit_refused)));
            return Err(ConnectionDenied::new(std::io::Error::other("too many circuits")));
        };
        self.act(ToSwarm::GenerateEvent(CallsEvent::Dropped(|counters| &counters.call_circuit_pushed_out)));
        self.act(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        Ok(())
    }

    fn forget(&mut self, peer: &PeerId, id: ConnectionId) {
        self.incoming.retain(|circuit| circuit.id != id);
        if let Some(own) = self.direct.get_mut(peer) {
            own.retain(|known| *known != id);
            if own.is_empty() {
                self.direct.remove(peer);
            }
        }
    }

    fn on_stream(&mut self, id: ConnectionId, stream: CallStream) {
        let circuit = self.incoming.iter_mut().find(|circuit| circuit.id == id);
        let shows_address = self.hidden && circuit.is_none();
        if let Some(circuit) = circuit {
            circuit.has_carried_call = true;
        }
        let counter: WhichCounter = match &self.taker {
            _ if shows_address => |counters| &counters.call_shows_address,
            None => |counters| &counters.call_not_taken,
            Some(taker) => match taker.try_send(stream) {
                Ok(()) => return,
                Err(_) => |counters| &counters.call_dropped,
            },
        };
        self.act(ToSwarm::GenerateEvent(CallsEvent::Dropped(counter)));
    }
}

impl NetworkBehaviour for Calls {
    type ConnectionHandler = CallHandler;
    type ToSwarm = CallsEvent;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !is_circuit(local) {
            return Ok(CallHandler::new(self.connection(&peer, remote), Ends::ByItself, None));
        }
        self.admit_circuit(id, peer, local)?;
        Ok(CallHandler::new(self.connection(&peer, local), Ends::WithItsCall, None))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let ends = if is_circuit(addr) { Ends::WithItsCall } else { Ends::ByItself };
        Ok(CallHandler::new(self.connection(&peer, addr), ends, self.dialling.remove(&id)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) if !made.endpoint.is_relayed() => {
                self.direct.entry(made.peer_id).or_default().push(made.connection_id);
            }
            FromSwarm::ConnectionClosed(closed) => self.forget(&closed.peer_id, closed.connection_id),
            // A circuit that another behaviour refused after this one had taken it.
            FromSwarm::ListenFailure(failure) => self.incoming.retain(|circuit| circuit.id != failure.connection_id),
            FromSwarm::DialFailure(failure) => {
                if let Some(reply) = self.dialling.remove(&failure.connection_id) {
                    let _ = reply.send(Err(OpenCallError::Unreachable(reason(failure.error))));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            HandlerEvent::Stream(stream) => self.on_stream(id, *stream),
            HandlerEvent::Dropped(counter) => self.act(ToSwarm::GenerateEvent(CallsEvent::Dropped(counter))),
            HandlerEvent::Over => {
                self.act(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Why a circuit was not made, in the words of the innermost error.
fn reason(error: &DialError) -> String {
    let mut inner: &dyn std::error::Error = error;
    if let DialError::Transport(tried) = error
        && let Some((_, TransportError::Other(first))) = tried.first()
    {
        inner = first;
    }
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_node_that_hides_its_address_calls_over_circuits_only() {
        let (own, peer, relay) = (PeerId::random(), PeerId::random(), PeerId::random());
        let addr: Multiaddr = format!("/ip4/203.0.113.1/tcp/4600/p2p/{relay}/p2p-circuit/p2p/{peer}").parse().unwrap();
        let ways = [false, true].map(|hidden| {
            let mut calls = Calls::new(own, hidden);
            calls.direct.insert(peer, vec![ConnectionId::new_unchecked(1)]);
            calls.open(&addr, CallOver::Any, oneshot::channel().0);
            calls.actions.pop_front()
        });
        assert!(matches!(ways, [Some(ToSwarm::NotifyHandler { .. }), Some(ToSwarm::Dial { .. })]), "{ways:?}");
    }

    #[test]
    fn a_relay_without_limits_keeps_nobody_out_who_comes_through_another() {
        let mut calls = Calls::new(PeerId::random(), false);
        let through = |host: u8| -> Multiaddr {
            format!("/ip4/203.0.113.{host}/tcp/4600/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap()
        };
        let mut last = 0;
        let mut open = |calls: &mut Calls, addr: &Multiaddr| {
            last += 1;
            let id = ConnectionId::new_unchecked(last);
            let admitted = calls.admit_circuit(id, PeerId::random(), addr).is_ok();
            calls.incoming.iter_mut().for_each(|circuit| circuit.has_carried_call = true);
            admitted
        };
        let (evil, honest) = (through(1), through(2));

        assert_eq!((0..1000).filter(|_| open(&mut calls, &evil)).count(), MAX_CIRCUITS_OF_RELAY);
        assert!(open(&mut calls, &honest));
        assert_eq!((3..100).filter(|host| open(&mut calls, &through(*host))).count(), MAX_INCOMING_CIRCUITS - 25);
    }

    #[test]
    fn a_circuit_that_carries_no_call_gives_way_to_the_next_one_of_its_relay() {
        let mut calls = Calls::new(PeerId::random(), false);
        let addr: Multiaddr =
            format!("/ip4/203.0.113.1/tcp/4600/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();

        let admitted =
            (0..1000).all(|id| calls.admit_circuit(ConnectionId::new_unchecked(id), PeerId::random(), &addr).is_ok());
        assert!(admitted && calls.incoming.len() == MAX_CIRCUITS_OF_RELAY);
    }
}
