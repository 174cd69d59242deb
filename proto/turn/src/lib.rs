//! TURN over TCP (RFC 8656 with RFC 6062): TCP connections through a relay, for where no direct path exists.
//!
//! ```text
//! control connection    STUN messages, one after the other, with nothing between them (RFC 8489 §6.2.2)
//! data connection       one ConnectionBind request, one answer to it, then raw bytes of the peer's connection (RFC 6062 §4.3)
//! ```
//! [`client::Client`] is the state machine of one allocation, [`server::Server`] that of a whole relay. Both are sans-IO: they have no
//! socket, clock, thread or randomness of their own.
//!
//! # The loop of a client
//!
//! 1. Open a connection to the server, with or without TLS, and make a [`client::Client`].
//! 2. Read whole messages by a [`framing::StunReader`], and pass them to [`client::Client::received`].
//! 3. Ask for what you want: [`client::Client::permit`] lets a peer in, [`client::Client::connect`] connects to one.
//! 4. Call [`client::Client::handle_timeout`] at [`client::Client::poll_timeout`].
//! 5. After each of these calls, do all that [`client::Client::poll_output`] asks for. A data connection is opened when it says so; told
//!    by [`client::Client::data_connected`]; its one answer goes to [`client::Client::data_received`]; and after `Bound` it is yours.
//!
//! ```
//! use std::time::Instant;
//! use keyferry_turn::{AddressFamily, client::{Client, ClientOptions, ClientOutput, Config}, long_term::UserCredentials};
//!
//! let now = Instant::now();
//! let options = ClientOptions {
//!     credentials: Some(UserCredentials::new("user", "password")?),
//!     family: AddressFamily::V4,
//!     seed: [7; 32], // random in earnest
//!     config: Config::default(),
//! };
//! let mut client = Client::new(options, now);
//! client.permit(now, "192.0.2.5".parse()?)?; // asked for as soon as there is an allocation
//! let mut sent = Vec::new();
//! while let Some(output) = client.poll_output() {
//!     match output {
//!         ClientOutput::Send { message } => sent.push(message), // to the control connection
//!         ClientOutput::Allocated(allocated) => println!("peers reach this side at {}", allocated.relayed),
//!         ClientOutput::Ended(ending) => println!("no allocation: {ending}"),
//!         _ => {} // data connections, permissions
//!     }
//! }
//! assert_eq!(sent.len(), 1, "an Allocate request, without credentials at first");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! A server is driven alike: it is told of connections and messages, and says where to listen, whom to connect to and which two
//! connections to join. The bytes of joined connections never come to it. Over real sockets, `examples/allocate.rs` drives a client and
//! `examples/relay.rs` a server.
//!
//! # What it does, and what not
//!
//! | | RFC | client | server |
//! |---|---|---|---|
//! | Allocate, Refresh | 8656 §7, §8; 6062 §4.1, §5.1 | TCP only | TCP only |
//! | permissions | 8656 §9, §10 | one peer for each request, refreshed | yes |
//! | Connect, ConnectionBind, ConnectionAttempt | 6062 §4.3-§4.5, §5.2-§5.4 | yes | yes |
//! | IPv6 allocations | 8656 §7.1-§7.3, §18.6 | one family each | one family each |
//! | long-term credentials, under MD5 and SHA-256 keys | 8489 §9.2 | yes | yes |
//! | security features of nonces against bid-down | 8489 §9.2, §18.1 | yes | yes |
//! | user hash | 8489 §9.2.3, §14.4 | where the server offers it | not offered |
//! | preparation of user names and passwords (OpaqueString) | 8489 §9.2.2, 8265 | no: taken as they are | no: taken as they are |
//! | credentials that run out | draft-uberti-behave-turn-rest-00 | as any others | issued and checked by [`rest_credentials`] |
//! | Binding | 8489 §6.3 | no | answered, by [`binding`] |
//! | ALTERNATE-SERVER | 8489 §10 | reported, not followed | no |
//! | FINGERPRINT | 8489 §14.7 | not sent | on answers and indications that no key signs |
//! | SOFTWARE | 8489 §14.14 | not sent | not sent |
//! | UDP: channels, Send and Data, EVEN-PORT, reservations | 8656 §11, §12 | no | no |
//! | DNS discovery, mobility, third-party authorization | 8656 §4, 5928; 8016; 7635 | no | no |
//!
//! # What you bring
//!
//! Sockets and TLS; the clock, of which the server needs the wall clock too ([`UnixTime`]); random seeds; passwords; the moving of bytes
//! between joined connections; and, for a server, a [`peer_policy::PeerPolicy`]: by default no peer in a private network is reached.
//!
//! # Others that err or lie
//!
//! Nothing that the other side sends makes either machine panic. A server's success must prove that it knows the password, or the
//! request fails as [`client::RequestError::Unproven`]; indications of peers without permission are ignored; lifetimes are believed up
//! to a limit. A server answers a bad request by its code, closes what is no STUN, and bounds what one identity, one host and
//! all together may have ([`server::RelayLimits`]). [`framing::StunFrameError`] says why bytes are no messages: close the connection.

pub mod binding;
pub mod client;
pub mod framing;
pub mod long_term;
pub mod peer_policy;
pub mod rest_credentials;
pub mod server;

use std::{fmt, net::IpAddr};

pub use keyferry_net::{ip::Network, time::UnixTime};

/// The address family of a relayed address (RFC 8656 §18.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// Returns the family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
