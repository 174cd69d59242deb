//! What the agents of a negotiation tell each other over the signalling channel.
//!
//! ```text
//! Description   ufrag string | password string | candidates list ≤ 32 | complete bool | mapping u32 | opening bool
//! Signal        variant u32 | 0 Candidates: candidates list ≤ 32, complete bool
//!                           | 1 Opened: OpenTurn      2 Cross: OpenTurn, after Duration      3 Exhausted
//! OpenTurn      round u8 | sender address | receiver address | ttl u8           (bincode, as `keyferry-proto` sends it)
//! ```
//!
//! What it is not: authentic. The signalling signs, orders and bounds it.

use std::{net::SocketAddr, time::Duration};

use crate::candidate::Candidate;

/// Candidates of one side in one negotiation, over all messages.
pub const MAX_SIGNALLED_CANDIDATES: usize = 32;

/// How the NAT in front of a node chooses the outer port of a TCP connection (RFC 5382 §4, RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mapping {
    /// Not known: fewer than two servers have said what they saw.
    Unknown,
    /// The same for every destination, or there is no NAT.
    EndpointIndependent,
    /// Another one for each destination: nobody can foretell it.
    EndpointDependent,
}

/// How one side can be reached, and what it can do: the first thing that each side tells the other.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Description {
    /// The ICE username fragment of this negotiation.
    pub ufrag: String,
    /// The ICE password of this negotiation.
    pub password: String,
    /// The candidates that are known so far.
    #[cfg_attr(
        feature = "serde",
        serde(deserialize_with = "keyferry_net::bounded::at_most::<MAX_SIGNALLED_CANDIDATES, _, _>")
    )]
    pub candidates: Vec<Candidate>,
    /// Whether there will be no further candidates.
    pub complete: bool,
    /// What its NAT does.
    pub mapping: Mapping,
    /// Whether it can send opening SYNs.
    pub opening: bool,
}

impl std::fmt::Debug for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Description")
            .field("ufrag", &self.ufrag)
            .field("candidates", &self.candidates)
            .field("complete", &self.complete)
            .field("mapping", &self.mapping)
            .field("opening", &self.opening)
            .finish_non_exhaustive()
    }
}

/// One message from agent to agent, after the descriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Signal {
    /// Further candidates (RFC 8838).
    Candidates {
        /// The new ones.
        #[cfg_attr(
            feature = "serde",
            serde(deserialize_with = "keyferry_net::bounded::at_most::<MAX_SIGNALLED_CANDIDATES, _, _>")
        )]
        candidates: Vec<Candidate>,
        /// Whether these were the last.
        complete: bool,
    },
    /// The sender has opened its NAT for the pair; it is the receiver's turn to connect, and to open if that fails.
    Opened(OpenTurn),
    /// Both sides connect so that their SYNs cross: the receiver at once, the sender after `after`.
    Cross {
        /// The round and its pair.
        turn: OpenTurn,
        /// How long the sender expects this message to be under way.
        after: Duration,
    },
    /// The sender has tried all that it could. When both sides have said so, the negotiation has failed.
    Exhausted,
}

/// Why the agent has not acted upon a message of the peer's. The peer's fault; the negotiation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The description came twice.
    #[error("the peer described itself twice")]
    DescribedTwice,
    /// Something came before the description.
    #[error("the peer sent a signal before its description")]
    NotDescribed,
    /// The username fragment or password is not what RFC 8445 §5.3 asks for.
    #[error("the peer's ICE credentials are malformed")]
    Credentials,
    /// More candidates than [`MAX_SIGNALLED_CANDIDATES`]; those within the limit have been taken.
    #[error("the peer sent more than {MAX_SIGNALLED_CANDIDATES} candidates")]
    TooManyCandidates,
    /// Candidates after the last one.
    #[error("the peer sent candidates after it had said that there are no more")]
    CandidatesAfterLast,
    /// More signals than one negotiation can need.
    #[error("the peer sent more than {limit} signals")]
    TooManySignals {
        /// The limit.
        limit: usize,
    },
    /// A turn of opening between addresses that are no pair.
    #[error("the peer opens between addresses that are no pair")]
    UnknownPair,
    /// A turn that no ladder of rounds reaches.
    #[error("the peer opens in round {got}; there are {limit} at most")]
    Round {
        /// The round that it named.
        got: u8,
        /// The limit.
        limit: u8,
    },
}

/// One round of opening the way between two addresses. Rounds are numbered from 0 for each pair; sides take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OpenTurn {
    /// The number of the round.
    pub round: u8,
    /// The sender's candidate address of the pair.
    pub sender: SocketAddr,
    /// The receiver's candidate address of the pair.
    pub receiver: SocketAddr,
    /// The TTL of the opening SYN; 0 in a crossing.
    pub ttl: u8,
}
