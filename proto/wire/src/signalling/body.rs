//! What a message of a call says, and the limits of that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MAX_MESSAGE_LEN, SignallingError};
use keyferry_ice::{CredentialsError, Description, MAX_SIGNALLED_CANDIDATES, Signal, Stream, check_credentials};

use crate::codec;

/// How far ahead a side may arrange crossing SYNs.
pub const MAX_CROSSING_DELAY: Duration = Duration::from_secs(10);

/// Why the callee does not accept a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum CallRefusal {
    /// The callee does not take calls from this caller.
    #[error("its owner does not take calls from this node")]
    Policy,
    /// The callee has too many calls.
    #[error("it has too many calls at the moment")]
    Busy,
    /// There is no stream in which both take part: one side uses nothing but relays, and the other none.
    #[error("one of the two nodes uses nothing but relays, and the other none")]
    NoCommonStream,
}

/// The streams in which a side takes part. The description is that of the direct one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// The side uses no relay.
    Direct(Description),
    /// The side describes the relayed stream when the call is answered.
    DirectAndRelayed(Description),
    /// The side uses nothing but relays, and tells no address.
    Relayed,
}

impl Streams {
    /// The description of the direct stream.
    pub fn direct(&self) -> Option<&Description> {
        match self {
            Self::Direct(description) | Self::DirectAndRelayed(description) => Some(description),
            Self::Relayed => None,
        }
    }

    /// Whether the side takes part in a stream.
    pub fn has(&self, stream: Stream) -> bool {
        match stream {
            Stream::Direct => self.direct().is_some(),
            Stream::Relayed => matches!(self, Self::DirectAndRelayed(_) | Self::Relayed),
        }
    }

    /// Whether there is a stream in which both sides take part.
    pub fn meet(&self, other: &Self) -> bool {
        [Stream::Direct, Stream::Relayed].into_iter().any(|stream| self.has(stream) && other.has(stream))
    }

    /// The candidates of the direct stream.
    pub(super) fn candidates(&self) -> usize {
        self.direct().map_or(0, |description| description.candidates.len())
    }
}

/// The body of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body {
    Call(Streams),
    Answer(Streams),
    Refused(CallRefusal),
    Heard,
    Describe(Description),
    Signal(Stream, Signal),
    Left(Stream),
}

impl Body {
    /// Encodes a body that is within the limits.
    pub(super) fn encode(&self) -> Result<Vec<u8>, SignallingError> {
        self.check()?;
        Ok(codec::encode(self))
    }

    /// Decodes a body, which is then within the limits.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SignallingError> {
        let body: Self = codec::decode(bytes, MAX_MESSAGE_LEN)?;
        body.check()?;
        // A duration with more nanoseconds than a second has decodes to another one, with a carry.
        match codec::encode(&body) == bytes {
            true => Ok(body),
            false => Err(SignallingError::NotCanonical),
        }
    }

    /// What it is, for an error.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Call(_) => "a call",
            Self::Answer(_) => "an answer",
            Self::Refused(_) => "a refusal",
            Self::Heard => "an acknowledgement",
            Self::Describe(_) => "a description",
            Self::Signal(..) => "a signal",
            Self::Left(_) => "the end of a stream",
        }
    }

    /// The candidates in it.
    pub(super) fn candidates(&self) -> usize {
        match self {
            Self::Call(streams) | Self::Answer(streams) => streams.candidates(),
            Self::Describe(description) => description.candidates.len(),
            Self::Signal(_, Signal::Candidates { candidates, .. }) => candidates.len(),
            Self::Refused(_) | Self::Heard | Self::Signal(..) | Self::Left(_) => 0,
        }
    }

    fn check(&self) -> Result<(), SignallingError> {
        let description = match self {
            Self::Call(streams) | Self::Answer(streams) => streams.direct(),
            Self::Describe(description) => Some(description),
            _ => None,
        };
        if let Some(description) = description {
            check_credentials(&description.ufrag, &description.password)
                .map_err(|CredentialsError { field }| SignallingError::Credential { field })?;
        }
        if self.candidates() > MAX_SIGNALLED_CANDIDATES {
            return Err(SignallingError::Candidates { got: self.candidates() });
        }
        match self {
            Self::Signal(_, Signal::Cross { after, .. }) if *after > MAX_CROSSING_DELAY => {
                Err(SignallingError::Delay { got_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) })
            }
            _ => Ok(()),
        }
    }
}
