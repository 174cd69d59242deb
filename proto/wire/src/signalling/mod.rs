//! Signalling: how two nodes tell each other their candidates before there is a path between them; the messages of the
//! libp2p protocol `/keyferry/ice/1`.
//!
//! ```text
//! stream      frame*, each of at most 1,366 bytes (see `frame`); the caller opens the stream and speaks first
//! caller      call id 16 | caller's node key 32 | callee's node key 32 | Body::Call | signature 64
//! callee      Body::Answer | signature 64, or Body::Refused | signature 64, or an empty frame: not this node
//! caller      Body::Heard | signature 64, at once after an answer, so that the callee can measure the round trip
//! both        Body::Describe | signature 64, once, if both take part in the relayed stream
//! both        Body::Signal | signature 64, up to 256 from each side; Body::Left | signature 64, once for each stream
//! Body        enum { Call Streams, Answer Streams, Refused Refusal, Heard, Describe Description,
//!                    Signal (Stream | Signal), Left Stream }  (bincode, see `codec`)
//! Streams     enum { Direct Description, DirectAndRelayed Description, Relayed }
//! Stream      enum { Direct, Relayed }
//! Refusal     enum { Policy, Busy, NoCommonStream }
//! signature   by the sender's node key over "keyferry call v1\0" | call id 16 | caller's node key 32
//!             | callee's node key 32 | caller's rendezvous key 32 | callee's rendezvous key 32
//!             | direction u8 (0 from the caller, 1 from the callee) | number u32 | Body
//! ```
//! The number counts the messages of a direction from 0. All that is signed besides the body is known to both sides
//! from the first message and the connection, so nothing that is read here can come from another call, connection,
//! direction or place in the order.
//!
//! A call is about the streams in which both sides take part: [`Streams`] says so at once, with the description of the
//! direct one. The relayed one is described as soon as the call is answered, since its addresses have to be asked for.
//!
//! The states of a call are types: [`Calling`] becomes a [`Conversation`] by an answer, [`Called`] by giving one.
//! A [`Description`] or [`Signal`] from here has been verified and is within the limits; where its candidates point
//! to is a stranger's word all the same.
//!
//! What it is not: encrypted (libp2p's noise does that, between the rendezvous keys), the stream, or the policy of whom
//! to answer.

mod body;
mod call;
mod conversation;
mod error;

pub use self::{
    body::{MAX_CROSSING_DELAY, Refusal, Streams},
    call::{Answered, Called, Calling},
    conversation::{Conversation, MAX_SIGNALS, Received},
    error::SignallingError,
};

use std::fmt;

use data_encoding::HEXLOWER;

use crate::identity::{NodeKey, NodeSecret};
#[cfg(doc)]
use keyferry_ice::{Description, Signal};

/// The name of the protocol.
pub const PROTOCOL: &str = "/keyferry/ice/1";

/// The greatest length of a message, in bytes: a call with as much in it as there may be.
pub const MAX_MESSAGE_LEN: usize = 1366;

const DOMAIN: &[u8] = b"keyferry call v1\0";
const ID_LEN: usize = 16;
const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// What tells one call from all others: 16 random bytes that the caller chooses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub [u8; ID_LEN]);

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({})", HEXLOWER.encode_display(&self.0))
    }
}

/// The connection that carries a call: the rendezvous keys (ed25519) that libp2p has proven at its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channel {
    /// That of the caller.
    pub caller: [u8; KEY_LEN],
    /// That of the callee.
    pub callee: [u8; KEY_LEN],
}

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromCaller,
    FromCallee,
}

/// All that is signed in a call besides the bodies, their direction and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    id: CallId,
    caller: NodeKey,
    callee: NodeKey,
    channel: Channel,
}

impl Context {
    fn signed(&self, direction: Direction, number: u32, body: &[u8]) -> Vec<u8> {
        let direction = match direction {
            Direction::FromCaller => 0_u8,
            Direction::FromCallee => 1,
        };
        [
            DOMAIN,
            &self.id.0,
            self.caller.as_bytes(),
            self.callee.as_bytes(),
            &self.channel.caller,
            &self.channel.callee,
            &[direction],
            &number.to_le_bytes(),
            body,
        ]
        .concat()
    }

    /// `body | signature`.
    fn seal(&self, secret: &NodeSecret, direction: Direction, number: u32, body: &[u8]) -> Vec<u8> {
        [body, &secret.sign(&self.signed(direction, number, body))].concat()
    }

    /// The body of a message whose signature is right.
    fn open<'a>(&self, direction: Direction, number: u32, message: &'a [u8]) -> Result<&'a [u8], SignallingError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(SignallingError::TooLong { got: message.len() });
        }
        let too_short = SignallingError::TooShort { got: message.len() };
        let (body, signature) = message.split_last_chunk::<SIGNATURE_LEN>().ok_or(too_short)?;
        let sender = match direction {
            Direction::FromCaller => &self.caller,
            Direction::FromCallee => &self.callee,
        };
        match sender.verifies(&self.signed(direction, number, body), signature) {
            true => Ok(body),
            false => Err(SignallingError::BadSignature),
        }
    }
}

impl Direction {
    const fn reverse(self) -> Self {
        match self {
            Self::FromCaller => Self::FromCallee,
            Self::FromCallee => Self::FromCaller,
        }
    }
}

#[cfg(test)]
mod tests;
