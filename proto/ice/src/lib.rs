//! ICE over TCP (RFC 8445 with RFC 6544): finds one TCP connection between two nodes that works, through the NATs between
//! them or through a relay, and proves on that very connection that the peer knows the password of this negotiation.
//!
//! ```text
//! an ICE check on a TCP connection    length u16 big-endian | STUN message (RFC 4571 §2 framing)
//! after the nominating check          raw bytes, which belong to whoever takes the connection over
//! ```
//! [`Agent`] is the state machine of one negotiation, of one [`Stream`] with one component. It is sans-IO: it has no socket, clock,
//! thread or randomness of its own.
//!
//! # The loop
//!
//! 1. Make an [`Agent`] with fresh [`Credentials`], give it your candidates ([`Agent::add_local_candidates`]), and carry
//!    [`Agent::description`] to the peer over a channel that the two sides have already.
//! 2. Pass on what the peer's agent says: its description to [`Agent::set_remote`], each later signal to [`Agent::handle_signal`].
//! 3. Tell what your sockets do: [`Agent::connected`], [`Agent::connect_failed`], [`Agent::accepted`], [`Agent::closed`], and each whole
//!    frame, read by a [`FrameReader`], to [`Agent::received`].
//! 4. Call [`Agent::handle_timeout`] at [`Agent::poll_timeout`].
//! 5. After each of these calls, do all that [`Agent::poll_output`] asks for, before you read any further. After
//!    [`Output::Selected`] the connection is yours: the bytes behind the last frame are the peer's, and no frames.
//!
//! ```
//! use std::time::Instant;
//! use keyferry_ice::{
//!     Agent, AgentOptions, Candidate, CandidateKind, Config, Credentials, LocalCandidate, Mapping, Output, Role, Stream, TcpType,
//! };
//!
//! let now = Instant::now();
//! // Credentials and seed come from the system's randomness in earnest.
//! let side = |role, random: u8, tcp_type, addr: &str| {
//!     let options = AgentOptions { stream: Stream::Direct, mapping: Mapping::Unknown, opening: false };
//!     let credentials = Credentials::from_random(&[random; 32]);
//!     let mut agent = Agent::new(Config::default(), role, credentials, options, [random; 32], now);
//!     let base = addr.parse().expect("an address");
//!     let candidate = Candidate::new(CandidateKind::Host, tcp_type, base, 0);
//!     agent.add_local_candidates(now, &[LocalCandidate { candidate, base }], true);
//!     agent
//! };
//! let mut agent = side(Role::Controlling, 1, TcpType::Active, "192.0.2.1:4000");
//! let peer = side(Role::Controlled, 2, TcpType::Passive, "198.51.100.2:4000");
//!
//! agent.set_remote(now, peer.description())?;
//! let mut dialled = Vec::new();
//! while let Some(output) = agent.poll_output() {
//!     match output {
//!         Output::Connect { remote, .. } => dialled.push(remote), // then `connected` or `connect_failed`
//!         Output::Send { .. } | Output::Nominating { .. } | Output::Close { .. } => {}
//!         Output::Signal(_signal) => {} // to the peer's `handle_signal`
//!         Output::Selected(selected) => println!("connected to {}", selected.remote),
//!         Output::Failed(reason) => println!("no connection: {reason}"),
//!     }
//! }
//! assert_eq!(dialled, ["198.51.100.2:4000".parse()?]);
//! assert!(agent.poll_timeout().is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! `examples/two_agents.rs` does all of it over real sockets.
//!
//! # What it does, and what not
//!
//! | | RFC | |
//! |---|---|---|
//! | candidates active, passive and so; their priorities | 6544 §4.2, §4.5; 8445 §5.1.2 | yes |
//! | pairs by `tcptype`, pruning, order, limit | 6544 §6.2; 8445 §6.1.2 | yes |
//! | checks, triggered checks, peer-reflexive candidates | 8445 §7 | yes; over TCP nothing is retransmitted |
//! | role conflicts | 8445 §7.3.1.1 | yes |
//! | regular nomination | 8445 §8.1.1 | yes; an aggressive peer's first nomination counts |
//! | candidates that trickle in | 8838 | yes |
//! | restart | 8445 §9 | a new [`Agent`] with new credentials |
//! | relayed candidates | 6062 §4.3, §4.4 | yes, in a [`Stream`] of their own; TURN itself is outside |
//! | simultaneous open | 6544 §7.1 | yes, by an own extension: the sides open in turns, which they agree on by [`Signal`]s |
//! | RFC 4571 frames for data | 6544 §7, §10 | no: raw bytes after the nomination |
//! | several components, ice-lite, SDP, UDP | 8445 §4, §2.5; 8839 | no |
//!
//! The page `docs/ice.md` of the repository goes through every MUST of both RFCs.
//!
//! # What you bring
//!
//! * sockets: connecting, accepting, and for simultaneous open a choice of local port and TTL; where the system has no such thing, leave
//!   [`AgentOptions::opening`] false and answer [`ConnectFailure::Unsupported`];
//! * the clock (each call takes `now`), and random bytes for [`Credentials::from_random`] and the seed;
//! * gathering: candidates of interfaces, STUN, port mappings and TURN, and what kind of [`Mapping`] the NAT has;
//! * the signalling channel, authentic and in order, and which addresses of the peer may be dialled at all;
//! * whatever protects the bytes afterwards, such as TLS. A check proves knowledge of a password, not whose key the peer has.
//!
//! # Peers that err or lie
//!
//! Nothing that a peer sends makes the agent panic, and it never trusts what it can count: pairs, connections, attempts,
//! candidates and signals have limits in [`Config`] or named here, and the negotiation ends by its deadline. A message that is no
//! STUN, or not authentic, costs its connection. [`SignalError`] says what a bad signal was; the negotiation goes on. [`FrameError`]
//! says why the bytes of a connection are no frames: close it. [`Counters`] counts all of it.

mod agent;
mod attempts;
mod candidate;
mod checklist;
mod checks;
mod config;
mod conn;
mod counters;
mod credentials;
mod ending;
mod framing;
mod messages;
mod nomination;
mod opening;
mod outcome;
mod pair;
mod signal;

#[cfg(test)]
mod tests;

pub use self::{
    agent::{Agent, AgentOptions},
    candidate::{Candidate, CandidateKind, TcpType},
    config::Config,
    counters::Counters,
    credentials::{Credentials, CredentialsError, PASSWORD_LEN, UFRAG_LEN, check_credentials},
    framing::{FrameError, FrameReader, MAX_MESSAGE_LEN, frame},
    messages::addressed_ufrag,
    outcome::{FailureReason, PairReport, PairState, Selected, Strategy},
    signal::{Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Signal, SignalError},
};

use std::net::SocketAddr;

/// One TCP connection, or an attempt at one, of one agent. The agent hands them out; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

/// What a negotiation looks for: a data stream of RFC 8445 §4. Each has its own credentials, checklist and nomination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stream {
    /// A connection from node to node. No relayed candidate counts.
    Direct,
    /// A connection through one or two relays: every pair has a relayed candidate. Nothing is opened in turns.
    Relayed,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

/// Who decides on the pair (RFC 8445 §6.1.1). The caller of a negotiation controls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nominates.
    Controlling,
    /// Takes the pair that the peer nominates.
    Controlled,
}

impl Role {
    /// The role of the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }
}

/// A candidate of this side, with the address of the socket behind it (RFC 8445 §5.1.1: its base).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalCandidate {
    /// What the peer is told.
    pub candidate: Candidate,
    /// The local address: that of the candidate itself for a host candidate, that behind the NAT for a reflexive or mapped
    /// one. For relayed ones, the relayed address of the allocation (RFC 8445 §5.1.1.1).
    pub base: SocketAddr,
}

/// From which local address a connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the node's own port at this address, so that a NAT with endpoint-independent mapping shows the known mapping.
    Port(SocketAddr),
    /// From this address and a port of the system's choice.
    AnyPort(std::net::IpAddr),
    /// From the allocation with this relayed address, by a TURN Connect (RFC 6062 §4.3).
    Relayed(SocketAddr),
}

/// How a connection is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMethod {
    /// As usual.
    Plain,
    /// By an opening SYN (`docs/ice.md`): its first SYN has this TTL, so that it passes this side's NATs and dies before
    /// the peer's, and the socket stays in SYN_SENT with its TTL raised again. The caller reports `Agent::opened` as
    /// soon as that SYN has left.
    Opening {
        /// The TTL (IPv6: hop limit) of the first SYN.
        ttl: u8,
    },
}

/// Why a connection was not made, as far as the agent cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectFailure {
    /// The other end, or a router before it, answered with RST.
    #[error("refused")]
    Refused,
    /// No route, or a router said so by ICMP.
    #[error("unreachable")]
    Unreachable,
    /// Nobody answered.
    #[error("no answer")]
    TimedOut,
    /// The local port is in use for a connection to that very address.
    #[error("the local address is in use")]
    AddrInUse,
    /// The platform has no way to send an opening SYN.
    #[error("not possible on this system")]
    Unsupported,
    /// Anything else.
    #[error("failed")]
    Other,
}

/// What the agent wants done. Drained by `Agent::poll_output` after each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; then `Agent::connected` or `Agent::connect_failed`.
    Connect {
        /// The new connection.
        conn: ConnId,
        /// From where.
        source: Source,
        /// To where.
        remote: SocketAddr,
        /// How.
        method: ConnectMethod,
    },
    /// Write one message to a connection, with its RFC 4571 length in front (which is not in `message`).
    Send {
        /// The connection.
        conn: ConnId,
        /// A STUN message.
        message: Vec<u8>,
    },
    /// What was sent on this connection is the last frame of this side, if the peer agrees: raw bytes may follow at once. If it does
    /// not, the connection is closed, and another one may be nominated.
    Nominating {
        /// The connection.
        conn: ConnId,
    },
    /// Close a connection, or give up the attempt at it. The agent has forgotten it already.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Carry this to the peer's agent, in order.
    Signal(Signal),
    /// The negotiation has succeeded: after everything sent so far, the connection carries raw bytes. The last output but
    /// for [`Output::Close`] of all others.
    Selected(Selected),
    /// The negotiation has failed. The last output but for [`Output::Close`] of all connections.
    Failed(FailureReason),
}
