//! Relays that answer a request for a reservation as none should.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    StreamProtocol, Swarm, Transport,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade, Version},
    },
    identify,
    identity::Keypair,
    noise, relay,
    swarm::{
        self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
    yamux,
};

use super::*;
use crate::base::traffic::Traffic;
use crate::reach::rendezvous::{
    behaviour::PROTOCOL_VERSION, handshake::Handshakes, observed::Departures, transport::PortTransport,
};

#[derive(NetworkBehaviour)]
struct Rules {
    identify: identify::Behaviour,
    relay: Evil,
}

/// When a reservation ends that is granted now, in seconds since 1970.
pub(super) type End = fn() -> u64;

/// Grants reservations that end then.
struct Evil(End);

/// Starts such a relay, and lets it go on.
pub(super) async fn start(listen: SocketAddr, end: End) -> SocketAddr {
    let (port, incoming) = Port::bind(&[listen]).await.unwrap();
    let addr = port.local_addrs()[0];
    let keys = Keypair::generate_ed25519();
    let transport =
        PortTransport::new(Arc::new(port), incoming.libp2p, Handshakes::new(Traffic::default()), Departures::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keys).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
    let identify = identify::Behaviour::new(identify::Config::new(PROTOCOL_VERSION.to_owned(), keys.public()));
    let rules = Rules { identify, relay: Evil(end) };
    let own = keys.public().to_peer_id();
    let mut swarm = Swarm::new(transport, rules, own, swarm::Config::with_tokio_executor());
    swarm.listen_on(multiaddr_of(addr)).unwrap();
    tokio::spawn(async move {
        // The other receivers stay open with the task.
        let _sessions = incoming.sessions;
        loop {
            swarm.select_next_some().await;
        }
    });
    addr
}

/// `HopMessage { type: STATUS, reservation { expire, addrs: [a public one] }, status: OK }`, in protobuf, with its length.
fn grant(mut expire: u64) -> Vec<u8> {
    let mut reservation = vec![0x08];
    while expire >= 0x80 {
        reservation.push(expire as u8 | 0x80);
        expire >>= 7;
    }
    reservation.push(expire as u8);
    let addr = multiaddr_of("203.0.113.1:7".parse().unwrap()).to_vec();
    reservation.extend([&[0x12, addr.len() as u8], &addr[..]].concat());
    let message = [&[0x08, 2, 0x1a, reservation.len() as u8], &reservation[..], &[0x28, 100]].concat();
    [&[message.len() as u8], &message[..]].concat()
}

impl NetworkBehaviour for Evil {
    type ConnectionHandler = EvilHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(EvilHandler(self.0))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(EvilHandler(self.0))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

struct EvilHandler(End);

impl ConnectionHandler for EvilHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(relay::HOP_PROTOCOL_NAME), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) = event {
            let end = self.0;
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(&grant(end())).await;
                let _ = stream.close().await;
            });
        }
    }
}
