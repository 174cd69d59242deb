//! What two nodes say to each other on the streams of a session.
//!
//! Whoever opens a stream sends one [`Request`] frame. What follows depends on it:
//!
//! ```text
//! Control    both sides: ControlMessage frames, as long as the session lives; the answer begins with Hello
//! Resolve    one ResolveReply frame
//! Catalogue  CatalogueReply frames: any number of Entry, then End; or Refused alone
//! Content    one ContentReply frame; after Header, for every item of the layout that has wanted units, in order:
//!            1 status byte (0: data follows; 7: the same, with marks; else a refusal, and nothing else for this item),
//!            then the bao encoding of the wanted groups of the item, or its outboard where only parents are wanted
//! Protocol   one ProtocolReply frame; after Accepted, what the two applications say to each other
//! ```
//! Bodies are in the encoding of [`crate::codec`].
//!
//! What it is not: frames ([`crate::frame`]), the bao encoding ([`crate::transfer::groups`]).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    address::ShareName,
    catalogue::{MAX_SIGNED_ENTRY_LEN, SignedEntry},
    codec::{self, CodecError},
    frame,
    hash::{ContentFormat, ContentHash},
    transfer::{groups::MAX_BLOB_SIZE, units::UnitRanges},
};

/// The version of what is said on streams.
pub const VERSION: u16 = 5;

/// The bit of [`Hello::features`] of a node that understands [`Request::Protocol`].
pub const FEATURE_PROTOCOLS: u64 = 1;

/// The greatest number of entries in a listing of a catalogue; a peer that lists more is not listened to any longer.
pub const MAX_CATALOGUE_ENTRIES: u64 = 100_000;

/// The greatest length of the name of a program, in bytes.
pub const MAX_AGENT_LEN: usize = 128;

/// The first frame of a stream: what its opener wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// This is the control stream of the session.
    Control(Hello),
    /// Say what this name of your catalogue stands for.
    Resolve(ShareName),
    /// List your catalogue.
    Catalogue,
    /// Send content.
    Content(ContentRequest),
    /// Hand this stream to the application that listens for a protocol of its own.
    Protocol(ProtocolName),
}

/// The name of a protocol that an application speaks over a stream of its own: 1 to 64 bytes, each a lower-case letter, a digit
/// or one of `-._/`, such as `chat.example/1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtocolName(String);

/// Why a text is no name of a protocol. The fault is the application's, or the peer's that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a protocol has 1 to {max} bytes, each a-z, 0-9 or one of -._/, not {found:?}", max = ProtocolName::MAX_LEN)]
pub struct ProtocolNameError {
    /// The text; its first characters, if it is longer than a name can be.
    pub found: String,
}

/// The answer to [`Request::Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtocolReply {
    /// From here on the stream is the applications'.
    Accepted,
    /// Nobody listens for it, or there is no room; the stream ends.
    Refused(Refusal),
}

/// Who speaks, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of what is said on streams: [`VERSION`].
    pub version: u16,
    /// One bit for each optional feature, such as [`FEATURE_PROTOCOLS`]; unknown bits are ignored.
    pub features: u64,
    /// The program and its version, for people: printable ASCII, [`MAX_AGENT_LEN`] at most.
    pub agent: String,
}

/// Which content is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRequest {
    /// The root: a blob or a collection.
    pub root: ContentHash,
    /// Which units of its layout; an end beyond the layout means up to its end.
    pub ranges: UnitRanges,
    /// What of them.
    pub part: ContentPart,
}

/// What of the wanted units is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentPart {
    /// Their groups, with what proves them.
    Groups,
    /// Those of the root blob alone, such as the list of files of a folder.
    Root,
    /// All parents of each item that has any of them, and no groups: they tell what of an older version is the same.
    Parents,
}

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// The first message of the side that did not open the stream.
    Hello(Hello),
    /// Asks for a [`ControlMessage::Pong`] with the same number.
    Ping(u64),
    /// Answers a [`ControlMessage::Ping`].
    Pong(u64),
    /// The last message: the session will be closed.
    Goodbye(Goodbye),
}

/// Why a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goodbye {
    /// Nothing is left to do.
    Finished,
    /// The node stops.
    Stopping,
    /// Too many sessions, or a newer one to the same node takes its place.
    Busy,
    /// The peer said something that it should not.
    Protocol,
    /// The peer has asked for nothing for minutes.
    Idle,
}

/// The answer to [`Request::Resolve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResolveReply {
    /// What the name stands for; not verified yet, and perhaps under another name.
    Found(SignedEntry),
    /// The catalogue has no such name, or the asker may not see it.
    NotFound,
    /// It is not looked up now.
    Refused(Refusal),
}

/// One message of the answer to [`Request::Catalogue`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogueReply {
    /// One entry; not verified yet.
    Entry(SignedEntry),
    /// The last message.
    End {
        /// How many entries came before it.
        count: u64,
    },
    /// The asker may not list the catalogue, or it is too much now; nothing follows.
    Refused(Refusal),
}

/// The answer to a [`ContentRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentReply {
    /// The content follows.
    Header(ContentHeader),
    /// It does not, and the stream ends.
    Refused(Refusal),
}

/// What a root is, by the word of the peer. The size is proven by the data, the format by the manifest's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentHeader {
    /// A file or a folder.
    pub format: ContentFormat,
    /// The size of the root blob (of a collection: of its manifest), in bytes.
    pub size: u64,
}

/// Why content is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The node does not have it.
    NotFound,
    /// Too much is being sent already; ask again later.
    Busy,
    /// The node had it, but its file has changed since.
    Changed,
    /// The owner does not want the asker to have it.
    Policy,
    /// The node had it, but its file is gone.
    Gone,
    /// The node has it, but cannot read its file now, which says nothing of the content.
    Unreadable,
}

/// The byte in front of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemStatus {
    /// The groups follow.
    Data,
    /// The groups follow, a mark before each leaf: the file has holes, which are not sent.
    Sparse,
    /// They do not; the next item follows.
    Refused(Refusal),
}

/// Why the body of a frame is not the message that was expected. All are the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes do not decode.
    #[error("the peer sent a message that is {0}")]
    Codec(#[from] CodecError),
    /// The name of the program is too long, or has something else than printable ASCII.
    #[error("the peer's program name has {got} bytes, or characters that are not printable ASCII")]
    Agent {
        /// Its length in bytes.
        got: usize,
    },
    /// A request for nothing.
    #[error("the peer asks for no units at all")]
    NoRanges,
    /// A size above [`MAX_BLOB_SIZE`].
    #[error("the peer claims a blob of {got} bytes; at most {MAX_BLOB_SIZE} are allowed")]
    Size {
        /// The claimed size in bytes.
        got: u64,
    },
    /// A status byte without a meaning.
    #[error("the peer sent {got} where the status of an item was expected")]
    Status {
        /// The byte.
        got: u8,
    },
}

/// A message that goes over a stream as one frame.
pub trait Message: Serialize + DeserializeOwned {
    /// The greatest length of its encoding, in bytes.
    const LIMIT: usize;

    /// Checks what the encoding alone does not.
    fn check(&self) -> Result<(), MessageError> {
        Ok(())
    }

    /// The body of its frame.
    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Its whole frame.
    fn to_frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode_frame(&self.encode(), &mut bytes);
        bytes
    }

    /// Reads the body of a frame.
    fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let message: Self = codec::decode(body, Self::LIMIT)?;
        message.check()?;
        Ok(message)
    }
}

impl Message for Request {
    const LIMIT: usize = 64 * 1024;

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Control(hello) => hello.check(),
            Self::Content(request) if request.ranges.is_empty() => Err(MessageError::NoRanges),
            Self::Resolve(_) | Self::Catalogue | Self::Content(_) | Self::Protocol(_) => Ok(()),
        }
    }
}

impl Message for ControlMessage {
    const LIMIT: usize = 4 * 1024;

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Ping(_) | Self::Pong(_) | Self::Goodbye(_) => Ok(()),
        }
    }
}

impl Message for ResolveReply {
    const LIMIT: usize = 4 + 8 + MAX_SIGNED_ENTRY_LEN;
}

impl Message for CatalogueReply {
    const LIMIT: usize = 4 + 8 + MAX_SIGNED_ENTRY_LEN;
}

impl Message for ProtocolReply {
    const LIMIT: usize = 64;
}

impl Message for ContentReply {
    const LIMIT: usize = 64;

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Header(header) if header.size > MAX_BLOB_SIZE => Err(MessageError::Size { got: header.size }),
            Self::Header(_) | Self::Refused(_) => Ok(()),
        }
    }
}

impl ContentRequest {
    /// Asks for groups, which is what most ask for.
    pub fn groups(root: ContentHash, ranges: UnitRanges) -> Self {
        Self { root, ranges, part: ContentPart::Groups }
    }
}

impl ProtocolName {
    /// The greatest length, in bytes.
    pub const MAX_LEN: usize = 64;
}

impl FromStr for ProtocolName {
    type Err = ProtocolNameError;

    fn from_str(text: &str) -> Result<Self, ProtocolNameError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/');
        match (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(ProtocolNameError { found: text.chars().take(Self::MAX_LEN).collect() }),
        }
    }
}

impl TryFrom<String> for ProtocolName {
    type Error = ProtocolNameError;

    fn try_from(text: String) -> Result<Self, ProtocolNameError> {
        text.parse()
    }
}

impl From<ProtocolName> for String {
    fn from(name: ProtocolName) -> Self {
        name.0
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Hello {
    fn check(&self) -> Result<(), MessageError> {
        let printable = self.agent.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match self.agent.len() {
            got if got > MAX_AGENT_LEN || !printable => Err(MessageError::Agent { got }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "the peer does not have it",
            Self::Busy => "the peer is sending too much already",
            Self::Changed => "the peer's file has changed since it was shared",
            Self::Policy => "the peer's owner does not allow it",
            Self::Gone => "the peer's file is gone since it was shared",
            Self::Unreadable => "the peer cannot read its file now",
        })
    }
}

impl ItemStatus {
    /// The byte for it.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Refused(Refusal::NotFound) => 1,
            Self::Refused(Refusal::Busy) => 2,
            Self::Refused(Refusal::Changed) => 3,
            Self::Refused(Refusal::Policy) => 4,
            Self::Refused(Refusal::Gone) => 5,
            Self::Refused(Refusal::Unreadable) => 6,
            Self::Sparse => 7,
        }
    }

    /// Reads the byte.
    pub const fn from_byte(byte: u8) -> Result<Self, MessageError> {
        Ok(match byte {
            0 => Self::Data,
            1 => Self::Refused(Refusal::NotFound),
            2 => Self::Refused(Refusal::Busy),
            3 => Self::Refused(Refusal::Changed),
            4 => Self::Refused(Refusal::Policy),
            5 => Self::Refused(Refusal::Gone),
            6 => Self::Refused(Refusal::Unreadable),
            7 => Self::Sparse,
            got => return Err(MessageError::Status { got }),
        })
    }

    /// The same, of an item whose leaves have no marks: a list of files, and a file of one unit.
    pub const fn without_marks(self) -> Result<Self, MessageError> {
        match self {
            Self::Sparse => Err(MessageError::Status { got: self.to_byte() }),
            status => Ok(status),
        }
    }
}

#[cfg(test)]
mod tests;
