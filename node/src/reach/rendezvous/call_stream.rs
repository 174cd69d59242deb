//! A stream that carries a call, with what libp2p has proven of its ends.
//!
//! What it is not: what is said on it; see [`crate::connect::signalling`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
};

use keyferry_proto::signalling::CallChannel;
use libp2p::{Multiaddr, PeerId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::circuit::{RelayCircuit, is_circuit};
use super::scope::socket_addr_of;

/// The bytes of a call, in both directions.
pub type CallIo = Pin<Box<dyn CallBytes>>;

/// What [`CallIo`] needs.
pub trait CallBytes: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> CallBytes for T {}

/// A stream that carries a call. Dropping it ends the stream, and the circuit that was made for it.
pub struct CallStream {
    pub(crate) io: CallIo,
    /// The circuit, or the address of a direct connection.
    pub(crate) via: Multiaddr,
    /// The rendezvous key of this node.
    pub(crate) local: [u8; 32],
    /// The rendezvous key of the peer.
    pub(crate) remote: [u8; 32],
}

/// Why there is no stream to a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenCallError {
    /// The address is not that of a circuit, or one that may not be dialled. Whoever made the offer is at fault.
    #[error("{addr} is no circuit that may be dialled")]
    Address {
        /// The address.
        addr: Multiaddr,
    },
    /// This node makes too many calls at once.
    #[error("too many calls are being made")]
    TooMany,
    /// A call over this node's own relay needs a connection to the callee, and there is none.
    #[error("it is not connected to this node, which is to relay the call")]
    NotConnected,
    /// Neither the relay nor the node behind it was reached. libp2p lends its error out only for a moment, so this is its text.
    #[error("{0}")]
    Unreachable(String),
    /// The connection closed before the stream was there.
    #[error("the connection has closed")]
    Closed,
    /// The peer takes no calls.
    #[error("it does not take calls")]
    TakesNone,
    /// The stream broke, or took too long.
    #[error(transparent)]
    Stream(Arc<io::Error>),
    /// The peer's key is not of the kind that nodes have.
    #[error("its key is not one of ours")]
    Key,
    /// The rendezvous has ended.
    #[error("the rendezvous has ended")]
    Ended,
}

impl CallStream {
    /// What a call of this node over the stream is bound to.
    pub(crate) fn outgoing_channel(&self) -> CallChannel {
        CallChannel { caller: self.local, callee: self.remote }
    }

    /// What a call to this node over the stream is bound to.
    pub(crate) fn incoming_channel(&self) -> CallChannel {
        CallChannel { caller: self.remote, callee: self.local }
    }

    /// The host that the stream comes from, as far as it is known: that of the relay, if there is one.
    pub(crate) fn host(&self) -> IpAddr {
        let host = match is_circuit(&self.via) {
            true => RelayCircuit::relay_addr_in(&self.via),
            false => socket_addr_of(&self.via),
        };
        host.map_or(Ipv4Addr::UNSPECIFIED.into(), |addr| addr.ip())
    }
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallStream(via {})", self.via)
    }
}

/// The ed25519 key of a peer; none if its key is another one.
pub(super) fn key_of_peer(peer: &PeerId) -> Option<[u8; 32]> {
    // An identity multihash of libp2p's protobuf form; see `keyferry_proto::identity`.
    const HEADER: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    peer.to_bytes().strip_prefix(&HEADER)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_peer_is_the_one_that_it_was_made_of() {
        let keys = libp2p::identity::Keypair::generate_ed25519();
        let peer = keys.public().to_peer_id();
        let key = keys.public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(key_of_peer(&peer), Some(key));
        assert_eq!(key_of_peer(&PeerId::random()), None, "a hash is no key");
    }
}
