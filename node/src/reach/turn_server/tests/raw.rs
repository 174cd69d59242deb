//! A client that asks for whatever a test wants, even where this node's own client would know better.
//!
//! What it is not: a client that could be used; it binds no connections.

use std::net::SocketAddr;

use keyferry_turn::long_term::{Authorization, Challenge, UserCredentials};
use stun_types::{
    attribute::{AttributeWrite, ErrorCode},
    message::{Message, MessageWrite, MessageWriteExt, MessageWriteVec, Method},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use turn_types::{
    AddressFamily,
    attribute::{Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress, XorRelayedAddress},
    message::{ALLOCATE, CONNECT, CREATE_PERMISSION, REFRESH},
};

use super::bench::{self, Bench};

/// A control connection of Ada's.
pub(super) struct RawClient {
    stream: TcpStream,
    authorization: Authorization,
}

/// An allocation, as it was told.
pub(super) struct RawAllocation {
    pub(super) relayed: SocketAddr,
    /// In seconds.
    pub(super) lifetime: u32,
}

impl RawClient {
    /// Connects, and answers the relay's challenge from then on.
    pub(super) async fn connect(bench: &Bench) -> Self {
        let mut stream = TcpStream::connect(bench.addr).await.unwrap();
        let request = Message::builder_request(ALLOCATE, MessageWriteVec::new());
        stream.write_all(&request.finish()).await.unwrap();
        let answer = bench::message(&mut stream).await;
        let challenge = Challenge::read(&Message::from_bytes(&answer).unwrap()).unwrap();
        let credentials = UserCredentials::new("ada", "lovelace").unwrap();
        Self { stream, authorization: Authorization::new(credentials, challenge).unwrap() }
    }

    /// Asks for an allocation.
    pub(super) async fn allocate(&mut self, family: AddressFamily) -> RawAllocation {
        let transport = RequestedTransport::new(RequestedTransport::TCP);
        let answer = self.ask(ALLOCATE, &[&transport, &RequestedAddressFamily::new(family)]).await;
        let message = Message::from_bytes(&answer).unwrap();
        let relayed = message.attribute::<XorRelayedAddress>().unwrap().addr(message.transaction_id());
        RawAllocation { relayed, lifetime: message.attribute::<Lifetime>().unwrap().seconds() }
    }

    /// Asks for a connection; returns the code of the answer, 0 for success.
    pub(super) async fn connect_to(&mut self, peer: SocketAddr) -> u16 {
        self.about_peer(CONNECT, peer).await
    }

    /// Asks for a permission.
    pub(super) async fn permit(&mut self, peer: SocketAddr) -> u16 {
        self.about_peer(CREATE_PERMISSION, peer).await
    }

    /// Asks for its allocation to be kept, and says of which family it is.
    pub(super) async fn refresh(&mut self, family: AddressFamily) -> u16 {
        code(&self.ask(REFRESH, &[&RequestedAddressFamily::new(family)]).await)
    }

    async fn about_peer(&mut self, method: Method, peer: SocketAddr) -> u16 {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        let id = Message::from_bytes(&message).unwrap().transaction_id();
        message.add_attribute(&XorPeerAddress::new(peer, id)).unwrap();
        code(&self.send(message).await)
    }

    async fn ask(&mut self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        for attribute in attributes {
            message.add_attribute(*attribute).unwrap();
        }
        self.send(message).await
    }

    async fn send(&mut self, message: MessageWriteVec) -> Vec<u8> {
        self.stream.write_all(&self.authorization.sign(message)).await.unwrap();
        bench::message(&mut self.stream).await
    }
}

fn code(answer: &[u8]) -> u16 {
    let message = Message::from_bytes(answer).unwrap();
    message.attribute::<ErrorCode>().map_or(0, |error| error.code())
}
