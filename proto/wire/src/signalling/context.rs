//! What each message of a call is bound to by its signature: the call, the connection, the direction, and its place in it.
//!
//! What it is not: what a message says.

use std::fmt;

use data_encoding::HEXLOWER;

use super::{MAX_MESSAGE_LEN, SignallingError};
use crate::identity::{NodeKey, NodeSecret};

pub(super) const ID_LEN: usize = 16;
pub(super) const KEY_LEN: usize = 32;
const DOMAIN: &[u8] = b"keyferry call v1\0";
const SIGNATURE_LEN: usize = 64;

/// What tells one call from all others: 16 random bytes that the caller chooses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub [u8; ID_LEN]);

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({})", HEXLOWER.encode_display(&self.0))
    }
}

/// The channel of a call (RFC 5056): the rendezvous keys (ed25519) that libp2p has proven at the two ends of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallChannel {
    /// That of the caller.
    pub caller: [u8; KEY_LEN],
    /// That of the callee.
    pub callee: [u8; KEY_LEN],
}

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    FromCaller,
    FromCallee,
}

/// All that is signed in a call besides the bodies, their direction and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallContext {
    pub(super) id: CallId,
    pub(super) caller: NodeKey,
    pub(super) callee: NodeKey,
    pub(super) channel: CallChannel,
}

impl CallContext {
    /// Whether the two nodes have one key.
    pub(super) fn is_of_one_key(&self) -> bool {
        self.caller == self.callee
    }

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
    pub(super) fn seal(&self, secret: &NodeSecret, direction: Direction, number: u32, body: &[u8]) -> Vec<u8> {
        [body, &secret.sign(&self.signed(direction, number, body))].concat()
    }

    /// The body of a message whose signature is right.
    pub(super) fn open<'a>(
        &self,
        direction: Direction,
        number: u32,
        message: &'a [u8],
    ) -> Result<&'a [u8], SignallingError> {
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
    pub(super) const fn reverse(self) -> Self {
        match self {
            Self::FromCaller => Self::FromCallee,
            Self::FromCallee => Self::FromCaller,
        }
    }
}
