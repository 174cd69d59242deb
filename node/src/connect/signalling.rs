//! Signalling: calls another node over a relay's circuit, so that both can negotiate a direct path.
//!
//! A call costs few round trips. With a connection to the relay: one to the relay and one from there to the callee for
//! the circuit, one from end to end for libp2p's noise, and one for the call and its answer, whose stream needs none of its
//! own (multistream-select's lazy form). Without one, two more to the relay: TCP and noise. Nothing waits for identify.
//!
//! The caller reveals its node key and its candidates to whoever is at the end of the circuit. That is the node that it
//! means: the offer that names the circuit is signed by the callee's node key, it names the callee's rendezvous peer, and
//! noise proves that peer before the first byte of the call. The relay sees ciphertext. The callee reveals nothing before
//! the caller's node key is proven and its policy allows the call.
//!
//! What it is not: the messages (`keyferry_proto::signalling`), the circuits ([`crate::reach::rendezvous`]), or the negotiation.

mod begin;
mod carry;
mod error;
mod listen;

use std::{io, time::Duration};

use keyferry_ice::Role;
use keyferry_proto::{identity::NodeKey, signalling::MAX_MESSAGE_LEN};
use libp2p::Multiaddr;
use tokio::{io::AsyncWrite, sync::watch};

pub use self::{
    begin::{FreeLine, call},
    error::CallError,
    listen::{IncomingCalls, Ringing, listen},
};
use crate::{
    base::frame_io::{StreamFrameReader, write_frame},
    connect::ice::{Dialogue, RelayedDialogue},
};

/// How long a call may take from the dial to the answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answered call lasts at most. A relay ends a circuit after two minutes.
pub const MAX_CALL_TIME: Duration = Duration::from_secs(90);

/// How long a message may take to be handed to the network.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The assumed round trip of the signalling path until it has been measured.
pub const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(200);

/// A call that was answered: signals go both ways, for each stream in which both sides take part, until one side drops it.
#[derive(Debug)]
pub struct Call {
    /// The node at the other end.
    pub peer: NodeKey,
    /// This side's part: the caller controls.
    pub role: Role,
    /// The circuit, or the address of a direct libp2p connection that was there already.
    pub via: Multiaddr,
    /// The direct stream.
    pub direct: Option<Dialogue>,
    /// The relayed stream.
    pub relayed: Option<RelayedDialogue>,
    round_trip: watch::Receiver<Option<Duration>>,
}

impl Call {
    /// The round trip of the signalling path. The callee knows it one round trip after its answer; until then it is
    /// [`ASSUMED_ROUND_TRIP`].
    pub fn round_trip(&self) -> Duration {
        self.round_trip.borrow().unwrap_or(ASSUMED_ROUND_TRIP)
    }
}

/// A reader of the messages on a call's stream.
const fn messages() -> StreamFrameReader {
    StreamFrameReader::new(MAX_MESSAGE_LEN)
}

/// Writes one message and hands it to the network.
async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let written = tokio::time::timeout(WRITE_TIMEOUT, write_frame(stream, message)).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
