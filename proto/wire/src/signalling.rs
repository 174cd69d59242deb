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
//! Body        enum { Call Streams, Answer Streams, Refused CallRefusal, Heard, Describe Description,
//!                    Signal (Stream | Signal), Left Stream }  (bincode, see `codec`)
//! Streams     enum { Direct Description, DirectAndRelayed Description, Relayed }
//! Stream      enum { Direct, Relayed }
//! CallRefusal enum { Policy, Busy, NoCommonStream }
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
mod context;
mod conversation;
mod error;

pub use self::{
    body::{CallRefusal, MAX_CROSSING_DELAY, Streams},
    call::{Answered, Called, Calling},
    context::{CallChannel, CallId},
    conversation::{Conversation, Received},
    error::SignallingError,
};

#[cfg(doc)]
use keyferry_ice::{Description, Signal};

/// The name of the protocol.
pub const PROTOCOL: &str = "/keyferry/ice/1";

/// The greatest length of a message, in bytes: a call with as much in it as there may be.
pub const MAX_MESSAGE_LEN: usize = 1366;

/// Signals that one side may send in one call, of all streams together.
pub const MAX_SIGNALS: u32 = 256;

#[cfg(test)]
mod tests;
