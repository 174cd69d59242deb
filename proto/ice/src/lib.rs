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
//! 3. Tell the agent what your sockets do: [`Agent::connected`], [`Agent::connect_failed`], [`Agent::accepted`], [`Agent::closed`],
//!    and each whole frame, read by a [`FrameReader`], to [`Agent::received`].
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
//! // In a real program credentials and seed come from the system's randomness.
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
//! | candidates: active, passive, simultaneous-open; their priorities | 6544 §4.2, §4.5; 8445 §5.1.2 | yes |
//! | pairs by `tcptype`, pruning, order, limit | 6544 §6.2; 8445 §6.1.2 | yes |
//! | pacing | 8445 §14.2 | in part: each side has its own [`Config::pacing`] |
//! | checks, triggered checks | 8445 §7 | yes; over TCP nothing is retransmitted |
//! | peer-reflexive candidates | 8445 §7.2.5.3.1, §7.3.1.3 | of the peer; one of this side would be paired with nothing |
//! | role conflicts | 8445 §7.3.1.1 | yes |
//! | regular nomination | 8445 §8.1.1 | yes; the first nomination of an aggressive peer counts |
//! | candidates that trickle in | 8838 | yes |
//! | relayed candidates | 6062 §4.3, §4.4 | yes, in a [`Stream`] of their own; TURN itself is outside |
//! | simultaneous open | 6544 §7.1 | yes, by an extension: the sides open in turns, which they agree on by [`Signal`]s |
//! | restart | 8445 §9; 6544 §9.2 | no: a new [`Agent`] with new credentials |
//! | RFC 4571 frames for data | 6544 §7, §10 | no: raw bytes after the nomination |
//! | keepalives and checks after the nomination, connections made again | 8445 §8.1.2, §11; 6544 §11.1 | no: the connection is its owner's then |
//! | several components, ice-lite, SDP, UDP | 8445 §4, §2.5; 8839 | no |
//!
//! The page `docs/ice.md` of the repository goes through every MUST of both RFCs.
//!
//! # What you bring
//!
//! * sockets: connecting, accepting, and for simultaneous open a choice of local port and TTL; where the system has no such thing, leave
//!   [`AgentOptions::opening`] false and answer [`ConnectFailure::Unsupported`];
//! * a clock (each call takes `now`), and random bytes for [`Credentials::from_random`] and the seed;
//! * gathering: candidates of interfaces, STUN, port mappings and TURN, and what kind of [`Mapping`] the NAT has;
//! * a signalling channel, authentic and in order, and a rule for which addresses of the peer may be dialled at all;
//! * whatever protects the bytes afterwards, such as TLS. A check proves knowledge of a password, not whose key the peer has.
//!
//! # Peers that err or lie
//!
//! Nothing that a peer sends makes the agent panic, and everything that a peer can make grow has a limit: pairs, connections, attempts,
//! candidates and signals, in [`Config`] or named here; and the negotiation ends by its deadline. A message that is no
//! STUN, or not authentic, costs its connection. [`SignalError`] says what a bad signal was; the negotiation goes on. [`FramingError`]
//! says why the bytes of a connection are no frames: close it. [`AgentCounters`] counts all of it.

mod agent;
mod attempts;
mod candidate;
mod checking;
mod checklist;
mod conclusion;
mod config;
mod conn;
mod connect;
mod credentials;
mod framing;
mod links;
mod means;
mod messages;
mod nomination;
mod opening;
mod outcome;
mod output;
mod pair;
mod priority;
mod role;
mod sides;
mod signal;
mod turns;

#[cfg(test)]
mod tests;

pub use self::{
    agent::Agent,
    candidate::{Candidate, CandidateKind, LocalCandidate, TcpType},
    config::Config,
    connect::{ConnId, ConnectFailure, ConnectMethod, Source, Strategy},
    credentials::{Credentials, CredentialsError, PASSWORD_LEN, UFRAG_LEN, check_credentials},
    framing::{FrameReader, FramingError, MAX_MESSAGE_LEN, frame},
    messages::addressed_ufrag,
    outcome::{FailureReason, PairReport, PairState, Selected},
    output::{AgentCounters, Output},
    priority::{NoPriority, Priority},
    role::Role,
    sides::{AgentOptions, Stream},
    signal::{Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Signal, SignalError},
};
